"""What a server offers, in the words of Wyoming's ``info``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from loquent.speech.net.models import Model


def recognizers(models: Mapping[str, Model]) -> dict[str, Model]:
    """Those that make text of speech, in the language that is spoken."""
    return _between("audio", "text", models)


def voices(models: Mapping[str, Model]) -> dict[str, Model]:
    """Those that speak text."""
    return _between("text", "audio", models)


def languages(model: Model) -> tuple[str, ...]:
    """Codes of the languages that a model knows; none if it does not say."""
    return getattr(_task(model), "languages", ())


def speakers(model: Model) -> tuple[str, ...]:
    """Names of a voice's speakers; none if it has one only."""
    names: tuple[str, ...] = getattr(getattr(_task(model), "voice", None), "speakers", ())
    return names if len(names) > 1 else ()


def description(models: Mapping[str, Model]) -> dict[str, Any]:
    """The data of ``info``."""
    heard = [{**_artifact(name), "languages": languages(model)} for name, model in recognizers(models).items()]
    spoken = [
        {
            **_artifact(name),
            "languages": languages(model),
            "speakers": [{"name": speaker} for speaker in speakers(model)] or None,
        }
        for name, model in voices(models).items()
    ]
    program = _artifact("loquent")
    asr = {**program, "models": heard, "supports_transcript_streaming": True, "requires_external_vad": True}
    tts = {**program, "voices": spoken, "supports_synthesize_streaming": True}
    return {"asr": [asr] if heard else [], "tts": [tts] if spoken else []}


def _between(takes: str, gives: str, models: Mapping[str, Model]) -> dict[str, Model]:
    fitting = {name: model for name, model in models.items() if len(model.stages) == 1}
    return {name: one for name, one in fitting.items() if (one.takes.kind, one.gives.kind) == (takes, gives)}


def _task(model: Model) -> Any:
    (engine,) = model.stages.values()
    return engine.task


def _artifact(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "attribution": {"name": "loquent", "url": ""},
        "installed": True,
        "description": name,
        "version": metadata.version("loquent"),
    }
