"""What a server offers, in the words of Wyoming's ``info``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from loquent.speech.net.models import Model, offering


def languages(model: Model) -> tuple[str, ...]:
    """Codes of the languages that a model knows; none if it does not say."""
    return getattr(_task(model), "languages", ())


def speakers(model: Model) -> tuple[str, ...]:
    """Names of a voice's speakers; none if it has one only."""
    names: tuple[str, ...] = getattr(getattr(_task(model), "voice", None), "speakers", ())
    return names if len(names) > 1 else ()


def description(models: Mapping[str, Model]) -> dict[str, Any]:
    """The data of ``info``."""
    heard = [
        {**_artifact(name), "languages": languages(model)} for name, model in offering(models, "audio", "text").items()
    ]
    spoken = [
        {
            **_artifact(name),
            "languages": languages(model),
            "speakers": [{"name": speaker} for speaker in speakers(model)] or None,
        }
        for name, model in offering(models, "text", "audio").items()
    ]
    program = _artifact("loquent")
    asr = {**program, "models": heard, "supports_transcript_streaming": True, "requires_external_vad": True}
    tts = {**program, "voices": spoken, "supports_synthesize_streaming": True}
    return {"asr": [asr] if heard else [], "tts": [tts] if spoken else []}


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
