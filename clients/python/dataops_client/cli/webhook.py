"""`dataops webhook`: who is told when jobs end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli import output as out
from dataops_client.cli.options import JsonOption, LimitOption, Output, OutputOption, ReasonOption, chosen, wants_json
from dataops_client.cli.plain import enum_word, plain
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import webhooks_pb2

group = typer.Typer(no_args_is_help=True)

WebhookArgument = Annotated[str, typer.Argument(help="The webhook's id.", metavar="WEBHOOK")]
ENDS = ("completed", "failed", "cancelled")


@group.command()
def create(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Where to send; https only.", metavar="URL")],
    kind: Annotated[list[str] | None, typer.Option(help="Only jobs of this kind, e.g. backup; repeatable.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs that end so: completed, failed, cancelled; repeatable.")
    ] = None,
    schedule: Annotated[str, typer.Option(metavar="SCHEDULE", help="Only jobs of this schedule's backups.")] = "",
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """Have a URL told of jobs that end, and show the key that messages are signed with. It is not shown again."""
    from dataops.v1 import jobs_pb2, webhooks_pb2

    settings: Settings = context.obj
    kinds = chosen(kind or [], jobs_pb2.JobKind.Value, "JOB_KIND_", "kind of job")
    states = chosen(state or [], jobs_pb2.JobState.Value, "JOB_STATE_", "state in which a job ends", ENDS)
    with settings.connect() as client:
        made, key = client.create_webhook(url, kinds=kinds, states=states, schedule_id=schedule, reason=reason)
    if wants_json(output, json):
        out.as_json(plain(webhooks_pb2.CreateWebhookResponse(webhook=made, signing_key=key)))
        return
    out.facts(
        [
            ("webhook", made.webhook_id),
            ("url", made.url),
            ("jobs", _concerned(made)),
            ("key", key.hex()),
        ]
    )
    print("\nthe key, in hexadecimal, is not shown again; docs/webhooks.md has how a receiver verifies a message by it")


@group.command("list")
def list_webhooks(
    context: typer.Context, limit: LimitOption = 20, output: OutputOption = Output.TEXT, json: JsonOption = False
) -> None:
    """List webhooks, newest first."""
    settings: Settings = context.obj
    with settings.connect() as client:
        found = client.list_webhooks(limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("webhook", "url", "jobs", "by", "created"),
        ((w.webhook_id, w.url, _concerned(w), w.created_by.subject, w.created_at.ToJsonString()) for w in found),
    )


@group.command()
def delete(context: typer.Context, webhook_id: WebhookArgument, reason: ReasonOption = "") -> None:
    """End a webhook; what was not delivered yet is dropped."""
    settings: Settings = context.obj
    with settings.connect() as client:
        client.delete_webhook(webhook_id, reason)
    print(f"deleted {webhook_id}")


@group.command()
def deliveries(
    context: typer.Context,
    webhook: Annotated[str, typer.Option("--webhook", metavar="WEBHOOK", help="Only to this webhook.")] = "",
    state: Annotated[
        list[str] | None, typer.Option(help="Only in this state: pending, delivered, failed; repeatable.")
    ] = None,
    limit: LimitOption = 20,
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
) -> None:
    """List what was sent or is to be sent, newest first: attempts, the last answer, the next attempt."""
    from dataops.v1 import webhooks_pb2

    settings: Settings = context.obj
    states = chosen(state or [], webhooks_pb2.DeliveryState.Value, "DELIVERY_STATE_", "state of a delivery")
    with settings.connect() as client:
        found = client.list_deliveries(webhook_id=webhook, states=states, limit=limit)
    if wants_json(output, json):
        out.messages_as_json(found)
        return
    out.table(
        ("delivery", "webhook", "job", "state", "attempts", "status", "error", "created", "next"),
        (
            (
                d.delivery_id,
                d.webhook_id,
                d.job_id,
                enum_word(d, "state"),
                d.attempts,
                d.last_status or "",
                d.last_error,
                d.created_at.ToJsonString(),
                d.next_attempt_at.ToJsonString() if d.HasField("next_attempt_at") else "",
            )
            for d in found
        ),
    )


def _concerned(webhook: webhooks_pb2.Webhook) -> str:
    """Which jobs it is told of."""
    from dataops.v1 import jobs_pb2

    kinds = [jobs_pb2.JobKind.Name(kind).removeprefix("JOB_KIND_") for kind in webhook.job_kinds]
    states = [jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_") for state in webhook.job_states]
    of_schedule = [f"of schedule {webhook.schedule_id}"] if webhook.schedule_id else []
    return " ".join(filter(None, [",".join(kinds), ",".join(states), *of_schedule])) or "all"
