"""What several tests of the runtime share."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from loquent.speech.net.limits import Limits
from loquent.speech.runtime.engine import Engine


@pytest.fixture
def start_server(band_energy: ModuleType) -> Iterator[Callable[..., Any]]:
    """Function that starts a server of band energies on a free port of this machine, in a thread.

    What such a server lets in does not depend on how busy this machine is, unless it is ``measured``.
    """
    from loquent.speech.net.server import Server, create_app

    with contextlib.ExitStack() as running:

        def start(
            task: object = None,
            capacity: int = 16,
            grace_s: float = 10.0,
            engines: object = None,
            limits: Limits | None = None,
            measured: bool = False,
            **options: Any,
        ) -> Server:
            limits = limits or Limits()
            if not measured:
                limits = dataclasses.replace(limits, max_load=1e9, max_lag_s=1e9)
            engines = engines or {"band": Engine(task or band_energy.BandEnergy(), capacity)}
            server = Server(create_app(engines, limits, **options), port=0, grace_s=grace_s, log_level="warning")
            thread = threading.Thread(target=server.run)
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join()

            running.callback(stop)
            while not server.started:
                thread.join(0.01)
                assert thread.is_alive()
            return server

        yield start


@pytest.fixture
def chat_server(scripted_talk: ModuleType) -> Iterator[Any]:
    """A chat server with a script: a `ScriptedChat`."""
    server = scripted_talk.ScriptedChat()
    yield server
    server.close()


@pytest.fixture(scope="session")
def agent_with(scripted_talk: ModuleType) -> Callable[..., Any]:
    """Function that makes an agent around a chat model."""
    return scripted_talk.agent_with


@pytest.fixture(scope="session")
def scripted_ear(scripted_talk: ModuleType) -> type:
    """A recogniser that hears given texts at given seconds."""
    return scripted_talk.ScriptedEar
