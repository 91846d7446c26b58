"""One receiver and one world for the tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.engine.webhooks.kit import forget_all
from tests.engine.webhooks.receiver import Receiver, receiving
from tests.world import World


@pytest.fixture(scope="module")
def one_receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiving(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


@pytest.fixture
def receiver(one_receiver: Receiver) -> Iterator[Receiver]:
    one_receiver.reset()
    yield one_receiver
    one_receiver.released.set()


@pytest.fixture
def world(fresh: Callable[[str], World], monkeypatch: pytest.MonkeyPatch) -> World:
    world = fresh("CREATE TABLE public.t (id int PRIMARY KEY, v text); INSERT INTO public.t VALUES (1, 'needle')")
    forget_all(world)
    monkeypatch.setattr(world, "caller", world.caller)
    return world


@pytest.fixture
def reached(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose settings let it send to the receiver."""
    settings = vars(world.resources.settings)
    monkeypatch.setitem(settings, "webhook_ca_file", receiver.ca_file)
    monkeypatch.setitem(settings, "webhook_private_hosts", "other.example, localhost")
    return world
