"""Models that come and go while a server runs, for whoever has an admin key."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from loquent.speech.net.limits import Limits
from loquent.speech.net.models import Model, Models, model_of
from loquent.speech.net.openai.answers import error_answer
from loquent.speech.net.operation.keys import Key
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.scheduler import Scheduler

log = logging.getLogger(__name__)

LONGEST_NAME = 200


@dataclass(frozen=True)
class Loaded:
    """An engine that has run once; ``languages``: what it translates from and to, if it translates."""

    engine: Engine
    languages: tuple[str, str] | None = None


# By the name of a model; runs in a thread of its own, and raises ValueError or OSError.
Loader = Callable[[str], Loaded]


class Offering(Protocol):
    """What a server offers."""

    models: Models
    translators: dict[tuple[str, str], Engine]
    scheduler: Scheduler
    limits: Limits
    draining: bool

    def observe(self, model: Model) -> None:
        """Show how a model is used."""

    def forget(self, model: Model) -> None:
        """Show it no more."""


class Admin:
    """``POST /v1/models/{model}/load`` and ``DELETE /v1/models/{model}``.

    One model is loaded at a time, and one that is there already is not loaded again. New streams see it once it has
    run.
    A model that is unloaded takes no new streams; those under way end first, then its memory is free.

    Args:
        load: None if nothing can be loaded.
        voices: other names of voices.
        fixed: names of models that stay, as something else depends on them.
    """

    def __init__(
        self, offering: Offering, load: Loader | None, voices: Mapping[str, str], fixed: tuple[str, ...] = ()
    ) -> None:
        self.offering, self._load, self._voices, self._fixed = offering, load, voices, fixed
        self._loading = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    async def load(self, request: Request) -> Response:
        """Load a model, and answer once streams can have it."""
        if (refusal := _refused(request)) is not None:
            return refusal
        name, offering = request.path_params["model"], self.offering
        if self._load is None:
            return error_answer(501, "this server was started without a way to load models")
        if len(name) > LONGEST_NAME:
            return error_answer(400, f"the name of a model has at most {LONGEST_NAME} characters", "model")
        if self._loading.locked():
            return error_answer(409, "another model is being loaded; try again later", "model")
        async with self._loading:
            if name in offering.models:
                return JSONResponse({"model": name, "loaded": False, "reason": "it is there already"})
            most = offering.limits.max_models
            if len(offering.models) + len(self._leaving) >= most:
                return error_answer(409, f"{most} models are in memory, and no more may be; unload one first", "model")
            try:
                loaded = await asyncio.to_thread(self._load, name)
            except (ValueError, OSError) as error:
                return error_answer(400, f"{name} cannot be loaded: {error}", "model")
            except Exception:
                log.exception("a model could not be loaded")
                return error_answer(500, f"{name} cannot be loaded; the server's log says why", "model")
            if loaded.languages in offering.translators:
                return error_answer(409, f"another model translates {' to '.join(loaded.languages or ())}", "model")
            self._offer(name, loaded)
        return JSONResponse({"model": name, "loaded": True})

    async def unload(self, request: Request) -> Response:
        """Offer a model no more."""
        if (refusal := _refused(request)) is not None:
            return refusal
        name, offering = request.path_params["model"], self.offering
        if name not in offering.models:
            return error_answer(404, f"no model {name[:100]!r}; this server has {', '.join(offering.models)}", "model")
        if name in self._fixed or len(offering.models) == 1:
            why = "it is the only one" if len(offering.models) == 1 else "files are transcribed with it"
            return error_answer(409, f"{name} stays: {why}", "model")
        model = offering.models.pop(name)
        offering.forget(model)
        engines = set(model.stages.values()) - {
            engine for other in offering.models.values() for engine in other.stages.values()
        }
        for languages, engine in list(offering.translators.items()):
            if engine in engines:
                del offering.translators[languages]
        streams = sum(engine.active for engine in engines)
        leaving = asyncio.create_task(_leave(offering.scheduler, engines))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        log.warning("model %s is not offered any more; %d streams of it go on", name, streams)
        return JSONResponse({"model": name, "unloaded": True, "streams": streams})

    def shut_down(self) -> None:
        """Wait for nothing any more."""
        for task in self._leaving:
            task.cancel()

    def _offer(self, name: str, loaded: Loaded) -> None:
        offering = self.offering
        offering.scheduler.add(loaded.engine)
        if loaded.languages is not None:
            offering.translators[loaded.languages] = loaded.engine
        offering.models[name] = model_of(name, loaded.engine, offering.translators, self._voices)
        offering.observe(offering.models[name])
        log.warning("model %s is offered from now on", name)


async def _leave(scheduler: Scheduler, engines: set[Engine]) -> None:
    for engine in engines:
        await scheduler.remove(engine)
    del engine
    engines.clear()
    await asyncio.to_thread(gc.collect)  # models hold themselves in circles, and it may be long until somebody looks


def _refused(request: Request) -> Response | None:
    key: Key | None = request.scope.get("loquent.key")
    if key is None or not key.admin:
        return error_answer(403, "models are loaded and unloaded with an admin key only; see docs/how-to/operate.md")
    return None
