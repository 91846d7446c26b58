"""The sample platform's rows: a pure function of (seed, number of users), in any order and at any size.

Each user follows from a hash of seed and index alone, so that every table can be streamed by itself and row
17 of a million equals row 17 of a thousand. Values are written as PostgreSQL prints them, so a file made here
and an export of the imported rows can be compared as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

Value = str | None

_EPOCH = datetime(2021, 1, 1)  # naive: it is printed with +00
_SPAN = 5 * 365 * 86400  # seconds over which users joined
_FIRST = ("Ada", "Björn", "Chloé", "Deniz", "Eşref", "Fatima", "Grace", "Hồng", "Iván", "Jürgen", "Kofi", "李娜",
          "Małgorzata", "Nils", "Oluwaseun", "Priya")  # fmt: skip
_LAST = ("Abara", "Brown", "Castro", "Dvořák", "Eze", "Fischer", "García", "Hughes", "Ito", "Jansen", "Kaya",
         "Lefèvre", "Müller", "Ng", "O'Brien", "van der Berg, Jr.")  # fmt: skip
_COUNTRIES = ("US", "CA", "MX", "DE", "FR", "GB", "PL", "TR")
_LANGUAGES = ("en", "fr", "es", "de")
_STATUSES = ("ACTIVE",) * 12 + ("INVITED", "INVITED", "SUSPENDED", "CLOSED")

USER_COLUMNS = (
    "id", "email", "name", "role", "status", "phone", "country", "rating", "preferences", "password_hash",
    "created_at", "updated_at",
)  # fmt: skip


class User(NamedTuple):
    """One user as text, in the order of USER_COLUMNS; None is NULL."""

    id: str
    email: str
    name: str
    role: str
    status: str
    phone: Value
    country: Value
    rating: Value
    preferences: str
    password_hash: str
    created_at: str
    updated_at: str


class Table(NamedTuple):
    """What to load into one table; columns left out are the database's to assign."""

    name: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[Value, ...]]


def digest(seed: int, kind: str, index: int) -> bytes:
    """16 bytes that look random and depend on nothing else."""
    return blake2b(f"{seed}:{kind}:{index}".encode(), digest_size=16).digest()


def uuid_text(raw: bytes) -> str:
    """The bytes as a version 4 UUID."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[raw[8] & 3]}{h[17:20]}-{h[20:]}"


def timestamp(seconds: int, micros: int = 0) -> str:
    """Seconds after the epoch of the sample, as PostgreSQL prints a timestamptz in UTC."""
    when = _EPOCH + timedelta(seconds=seconds, microseconds=micros)
    return f"{when.isoformat(' ').rstrip('0') if micros else when.isoformat(' ')}+00"


def role(index: int) -> str:
    """Every thousandth user is an administrator, every fifth a carrier, the others drive."""
    if index % 1000 == 0:
        return "ADMIN"
    return "CARRIER" if index % 5 == 1 else "DRIVER"


def user_id(seed: int, index: int) -> str:
    """The key of user number ``index``."""
    return uuid_text(digest(seed, "user", index))


def user(seed: int, index: int) -> User:
    """User number ``index``, counted from 0."""
    raw = digest(seed, "user", index)
    first, last, mix, more = raw[0] & 15, raw[1] & 15, raw[2], raw[3]
    joined = int.from_bytes(raw[4:8], "big") % _SPAN
    stars = raw[9] % 501
    return User(
        id=uuid_text(raw),
        email=f"user{index}.{raw[:3].hex()}@example.org",
        name=f"{_FIRST[first]} {_LAST[last]}",
        role=role(index),
        status=_STATUSES[mix & 15],
        phone=None if mix < 24 else f"1-555-{more:03d}-{joined % 10000:04d}",
        country=None if more < 12 else _COUNTRIES[more & 7],
        rating=None if raw[10] < 40 else f"{stars // 100}.{stars % 100:02d}",
        preferences=f'{{"lang": "{_LANGUAGES[mix & 3]}", "news": {"true" if mix & 4 else "false"}, "units": "km"}}',
        password_hash=f"$argon2id$v=19${raw.hex()}",
        created_at=timestamp(joined),
        updated_at=timestamp(joined + (more << 10), (mix << 8 | more) + 1),
    )


def tables(seed: int, users: int) -> Iterator[Table]:
    """All tables of the platform, parents before children."""
    drivers = [index for index in range(users) if role(index) == "DRIVER"]
    carriers = [index for index in range(users) if role(index) == "CARRIER"]
    yield Table("public.users", USER_COLUMNS, (user(seed, index) for index in range(users)))
    yield _driver_profiles(seed, drivers)
    yield _carrier_profiles(seed, carriers)
    yield _tokens(seed, users)
    yield _points_accounts(seed, drivers)
    yield _points_rules()
    yield _points_ledger(seed, drivers)
    yield _conduct_logs(seed, drivers)
    yield _referral_tree(seed, drivers)
    yield _sweepstakes_entries(seed, drivers[::4])
    yield _shareables(seed, drivers[::8])
    yield _redemption_requests(seed, drivers[::12])


def _driver_profiles(seed: int, drivers: list[int]) -> Table:
    def row(index: int) -> tuple[Value, ...]:
        raw = digest(seed, "driver", index)
        born = timestamp(int.from_bytes(raw[:4], "big") % _SPAN)
        return (
            user_id(seed, index),
            f"DL{index:09d}",
            "ABC"[raw[4] % 3],
            ("{}", "{HAZMAT}", "{HAZMAT,TANKER}", '{"DOUBLE, TRIPLE"}')[raw[5] & 3],
            born[:10],
            str(raw[6] % 45),
            None if raw[7] < 64 else repr(25 + raw[8] / 7),
            None if raw[7] < 64 else repr(-120 + raw[9] / 5),
            born,
            born,
        )

    columns = ("user_id", "licence_number", "licence_class", "endorsements", "hired_on", "experience_years",
               "home_latitude", "home_longitude", "created_at", "updated_at")  # fmt: skip
    return Table("public.driver_profiles", columns, map(row, drivers))


def _carrier_profiles(seed: int, carriers: list[int]) -> Table:
    def row(index: int) -> tuple[Value, ...]:
        raw = digest(seed, "carrier", index)
        return (
            uuid_text(raw),
            user_id(seed, index),
            f"{_LAST[raw[0] & 15]} Haulage {index}",
            str(100_000 + index),
            str(raw[1]),
            f"{raw[2] * 250_000}.00",
            f'{{"city": "Town {raw[3]}", "street": "{raw[4]} Main St"}}',
            "t" if raw[5] & 1 else "f",
        )

    columns = ("carrier_id", "user_id", "company_name", "dot_number", "fleet_size", "insurance_limit", "address",
               "verified")  # fmt: skip
    return Table("public.carrier_profiles", columns, map(row, carriers))


def _tokens(seed: int, users: int) -> Table:
    def row(index: int) -> tuple[Value, ...]:
        raw = digest(seed, "token", index)
        issued = int.from_bytes(raw[:4], "big") % _SPAN
        return (
            user_id(seed, index),
            ("SESSION", "API", "PASSWORD_RESET")[raw[4] % 3],
            f"\\x{raw.hex()}",
            ("{}", "{read}", "{read,write}")[raw[5] % 3],
            None if raw[6] < 32 else timestamp(issued + 86400),
            timestamp(issued + 3600) if raw[7] < 32 else None,
            timestamp(issued),
        )

    columns = ("user_id", "kind", "token_hash", "scopes", "expires_at", "revoked_at", "created_at")
    return Table("public.tokens", columns, map(row, range(0, users, 2)))


def _account_id(seed: int, index: int) -> str:
    return uuid_text(digest(seed, "account", index))


def _earned_and_spent(seed: int, index: int) -> tuple[int, int]:
    raw = digest(seed, "points", index)
    earned = 100 + int.from_bytes(raw[:2], "big")
    return earned, 1 + raw[2] % 100


def _points_accounts(seed: int, drivers: list[int]) -> Table:
    def row(index: int) -> tuple[Value, ...]:
        earned, spent = _earned_and_spent(seed, index)
        tier = "GOLD" if earned > 50_000 else "SILVER" if earned > 20_000 else "BRONZE"
        return (_account_id(seed, index), user_id(seed, index), str(earned - spent), tier)

    return Table("public.points_accounts", ("account_id", "user_id", "balance", "tier"), map(row, drivers))


def _points_rules() -> Table:
    def row(number: int) -> tuple[Value, ...]:
        valid = None if number % 3 else '["2021-01-01 00:00:00+00",)'
        return (f"RULE_{number:02d}", f"Rule number {number}", str(number * 10), f"1.{number}", valid)

    columns = ("code", "description", "points", "multiplier", "valid")
    return Table("public.points_rules", columns, map(row, range(1, 13)))


def _points_ledger(seed: int, drivers: list[int]) -> Table:
    def rows() -> Iterator[tuple[Value, ...]]:
        for index in drivers:
            raw = digest(seed, "ledger", index)
            earned, spent = _earned_and_spent(seed, index)
            when = int.from_bytes(raw[:4], "big") % _SPAN
            account = _account_id(seed, index)
            yield (account, str(1 + raw[4] % 12), str(earned), str(earned), "safe miles", timestamp(when))
            yield (account, None, str(-spent), str(earned - spent), None, timestamp(when + 60))

    columns = ("account_id", "rule_id", "delta", "balance_after", "memo", "occurred_at")
    return Table("public.points_ledger", columns, rows())


def _conduct_logs(seed: int, drivers: list[int]) -> Table:
    def row(index: int) -> tuple[Value, ...]:
        raw = digest(seed, "conduct", index)
        when = timestamp(int.from_bytes(raw[:4], "big") % _SPAN)
        return (
            uuid_text(raw),
            user_id(seed, index),
            user_id(seed, 0) if raw[4] & 1 else None,
            ("PRAISE", "NOTICE", "WARNING", "SEVERE")[raw[5] & 3],
            f'Report {index}: said "thank you", left at once',
            None if raw[6] < 64 else f'{{"points": {raw[7]}, "speeding": false}}',
            "{}" if raw[8] & 1 else f"{{https://media.example.org/{index}.jpg}}",
            when,
            when,
            when,
        )

    columns = ("log_id", "user_id", "reporter_id", "severity", "summary", "details", "evidence_urls", "occurred_at",
               "created_at", "updated_at")  # fmt: skip
    return Table("public.conduct_logs", columns, map(row, drivers[::10]))


def _referral_tree(seed: int, drivers: list[int]) -> Table:
    def row(position: int) -> tuple[Value, ...]:
        depth, ancestor = 0, position
        while ancestor:
            depth, ancestor = depth + 1, (ancestor - 1) // 3
        referrer = user_id(seed, drivers[(position - 1) // 3]) if position else None
        return (user_id(seed, drivers[position]), referrer, f"REF{drivers[position]}", str(depth))

    columns = ("user_id", "referrer_id", "code", "depth")
    return Table("public.referral_tree", columns, map(row, range(len(drivers))))


def _sweepstakes_entries(seed: int, drivers: list[int]) -> Table:
    def row(index: int) -> tuple[Value, ...]:
        raw = digest(seed, "sweepstakes", index)
        return (
            user_id(seed, index),
            f"SUMMER-{2021 + raw[0] % 5}",
            str(1 + raw[1] % 9),
            (None, "t", "f", "f")[raw[2] & 3],
            timestamp(int.from_bytes(raw[3:7], "big") % _SPAN),
        )

    columns = ("user_id", "campaign", "entries", "won", "entered_at")
    return Table("public.sweepstakes_entries", columns, map(row, drivers))


def _shareables(seed: int, drivers: list[int]) -> Table:
    def row(index: int) -> tuple[Value, ...]:
        raw = digest(seed, "shareable", index)
        when = timestamp(int.from_bytes(raw[:4], "big") % _SPAN)
        return (
            uuid_text(raw),
            user_id(seed, index),
            f"share-{index}",
            ("ROUTE", "REVIEW", "BADGE")[raw[4] % 3],
            f"Over the hills, part {raw[5]}",
            None if raw[6] < 64 else "First line\nsecond line\twith a tab and a \\ backslash",
            "{}" if raw[7] & 1 else '{road,"night drive"}',
            when if raw[8] & 1 else None,
            when,
        )

    columns = ("shareable_id", "owner_id", "slug", "kind", "title", "body", "tags", "published_at", "created_at")
    return Table("public.shareables", columns, map(row, drivers))


def _redemption_requests(seed: int, drivers: list[int]) -> Table:
    def row(index: int) -> tuple[Value, ...]:
        raw = digest(seed, "redemption", index)
        when = int.from_bytes(raw[:4], "big") % _SPAN
        pending = raw[4] & 3 == 0
        return (
            uuid_text(raw),
            _account_id(seed, index),
            str(1 + raw[5]),
            ("Fuel card", "Cap", "Tyre discount")[raw[6] % 3],
            f"{raw[5]}.{raw[7] % 100:02d}",
            "PENDING" if pending else ("APPROVED", "REJECTED", "PAID")[raw[4] % 3],
            timestamp(when),
            None if pending else timestamp(when + 7200),
            None if pending else user_id(seed, 0),
        )

    columns = ("request_id", "account_id", "points", "reward", "amount", "status", "requested_at", "decided_at",
               "decided_by")  # fmt: skip
    return Table("public.redemption_requests", columns, map(row, drivers))
