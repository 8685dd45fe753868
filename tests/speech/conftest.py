"""What several tests of the runtime share."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from loquent.speech.runtime.engine import Engine


@pytest.fixture
def start_server(band_energy: ModuleType) -> Iterator[Callable[..., Any]]:
    """Function that starts a server, of band energies by default, on a free port of this machine, in a thread."""
    from loquent.speech.net.server import Server, create_app

    with contextlib.ExitStack() as running:

        def start(
            task: object = None, capacity: int = 16, grace_s: float = 10.0, engines: object = None, **options: Any
        ) -> Server:
            engines = engines or {"band": Engine(task or band_energy.BandEnergy(), capacity)}
            server = Server(create_app(engines, **options), port=0, grace_s=grace_s, log_level="warning")
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
