"""What a server offers, in the words of Wyoming's ``info``."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from loquent.speech.net.models import Model, Models


def speakers(model: Model) -> tuple[str, ...]:
    """Names of a voice's speakers; none if it has one only."""
    return model.speakers if len(model.speakers) > 1 else ()


def description(models: Models) -> dict[str, Any]:
    """The data of ``info``."""
    heard = [
        {**_artifact(name), "languages": one.languages} for name, one in models.only(lambda model: model.hears).items()
    ]
    spoken = [
        {
            **_artifact(name),
            "languages": one.languages,
            "speakers": [{"name": speaker} for speaker in speakers(one)] or None,
        }
        for name, one in models.only(lambda model: model.speaks).items()
    ]
    program = _artifact("loquent")
    asr = {**program, "models": heard, "supports_transcript_streaming": True, "requires_external_vad": True}
    tts = {**program, "voices": spoken, "supports_synthesize_streaming": True}
    return {"asr": [asr] if heard else [], "tts": [tts] if spoken else []}


def _artifact(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "attribution": {"name": "loquent", "url": ""},
        "installed": True,
        "description": name,
        "version": metadata.version("loquent"),
    }
