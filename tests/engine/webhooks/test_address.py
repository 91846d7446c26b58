"""Where a webhook may point, and that the worker is no way into the inside of the network."""

from __future__ import annotations

import socket

import pytest

from engine.errors import InvalidRequest
from engine.webhooks.address import is_public, private_hosts_of, refuse_private, target_of
from tests.engine.webhooks.kit import ended_job, hook, only, send


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hooks.example.org", ("hooks.example.org", 443, "/", "hooks.example.org")),
        ("HTTPS://Hooks.Example.org:8443/a/b?c=d", ("hooks.example.org", 8443, "/a/b?c=d", "hooks.example.org:8443")),
        ("https://[2001:4860:4860::8888]:444/x", ("2001:4860:4860::8888", 444, "/x", "[2001:4860:4860::8888]:444")),
        ("https://8.8.8.8/", ("8.8.8.8", 443, "/", "8.8.8.8")),
    ],
)
def test_what_a_url_names(url, expected):
    target = target_of(url)
    assert (target.host, target.port, target.path, target.authority) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/",
        "https://",
        "https:///path",
        "https://user:secret@hooks.example.org/",
        "https://hooks.example.org/#part",
        "https://hooks.example.org:0/",
        "https://hooks.example.org:99999/",
        "https://hooks.example.org:x/",
        "https://hooks.example.org/a b",
        "https://hooks.example.org/\r\nHost: other",
        "https://hooks.exämple.org/",
        "https://hooks.example.org\\@other/",
        "https://[fe80::1%25eth0]/",
        "https://hooks.example.org./",
        "https://[::1/",
    ],
)
def test_a_url_that_is_none_of_ours_is_refused_and_not_repeated(url):
    with pytest.raises(InvalidRequest, match="WEBHOOK_URL_INVALID") as caught:
        target_of(url)
    assert "example" not in caught.value.message


def test_a_url_without_tls_hears_what_is_expected():
    with pytest.raises(InvalidRequest, match="url: found http, expected https://host"):
        target_of("http://hooks.example.org/")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "2002:7f00:1::", "2002:a00:1::",
        "64:ff9b::a00:1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_addresses_of_the_inside(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_at_large(address):
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:10.0.0.1]"])
def test_an_address_of_the_inside_is_refused_at_the_call_unless_it_is_named(host):
    target = target_of(f"https://{host}/")
    with pytest.raises(InvalidRequest, match=r"WEBHOOK_URL_INVALID: .*DATAOPS_WEBHOOK_PRIVATE_HOSTS"):
        refuse_private(target, frozenset({"localhost"}))
    refuse_private(target, private_hosts_of(f"a.example, {host.strip('[]')}"))


@pytest.mark.parametrize("host", ["localhost", "2130706433"])
def test_a_name_of_the_inside_is_refused_when_it_is_resolved(host, reached, receiver, monkeypatch):
    monkeypatch.setitem(vars(reached.resources.settings), "webhook_private_hosts", "other.example")
    hook(reached, f"https://{host}:{receiver.port}/")
    ended_job(reached)
    send(reached)

    assert (only(reached).last_error, only(reached).state) == ("ADDRESS_REFUSED", "PENDING")
    assert receiver.connections == 0


def test_a_name_that_is_another_address_each_time_it_is_asked_for_reaches_only_the_one_that_was_judged(
    reached, receiver, monkeypatch
):
    """First public, which lets it pass; then, for the connection, of the inside."""
    monkeypatch.setitem(vars(reached.resources.settings), "webhook_private_hosts", "")
    monkeypatch.setattr("engine.webhooks.sender.ATTEMPT_SECONDS", 0.2)
    hook(reached, f"https://rebinding.example:{receiver.port}/")
    ended_job(reached)
    asked = []

    def resolve(*_, **__):
        asked.append(1)
        address = "127.0.0.1" if len(asked) > 1 else "203.0.113.1"
        return [(2, 1, 6, "", (address, receiver.port))]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    monkeypatch.setattr("engine.webhooks.address.is_public", lambda address: address == "203.0.113.1")
    send(reached)

    assert (len(asked), receiver.connections) == (1, 0)
    assert only(reached).last_error in ("TIMEOUT", "CONNECTION_FAILED")


def test_a_name_with_addresses_of_both_sides_is_sent_to_the_public_ones_alone(reached, receiver, monkeypatch):
    """The receiver listens inside only: 127.0.0.2 stands for a public address at which nobody does."""
    monkeypatch.setitem(vars(reached.resources.settings), "webhook_private_hosts", "")
    hook(reached, f"https://both.example:{receiver.port}/")
    ended_job(reached)
    found = [(2, 1, 6, "", (address, receiver.port)) for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr("engine.webhooks.address.is_public", lambda address: address == "127.0.0.2")
    send(reached)

    assert only(reached).last_error == "CONNECTION_FAILED"
    assert receiver.connections == 0


def test_a_name_that_there_is_not(reached):
    hook(reached, "https://nothing.invalid/")
    ended_job(reached)
    send(reached)

    assert only(reached).last_error == "NAME_UNKNOWN"


def test_nobody_listens_there(reached, receiver):
    with socket.socket() as held:  # bound, so that it is nobody else's, and not listened to
        held.bind(("127.0.0.1", 0))
        hook(reached, f"https://localhost:{held.getsockname()[1]}/")
        ended_job(reached)
        send(reached)

    assert only(reached).last_error == "CONNECTION_FAILED"
