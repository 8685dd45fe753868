"""The answer to a client whose stream is open."""

from __future__ import annotations

import dataclasses
from typing import Any

from loquent.speech.audio.codecs import ENCODINGS
from loquent.speech.net.limits import Limits
from loquent.speech.net.messages import Start
from loquent.speech.net.models import Model
from loquent.speech.net.voice import output_rate
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.stream import Stream
from loquent.speech.runtime.task import Port

TOLD_LIMITS = ("max_text_bytes", "max_audio_bytes", "buffer_s", "idle_timeout_s", "max_duration_s", "max_markers")


def ready(name: str, model: Model, stream: Stream, start: Start, limits: Limits) -> dict[str, Any]:
    """The message "ready" of a stream of the model of this name."""
    message: dict[str, Any] = {"type": "ready", "stream": stream.stream, "model": name}
    if isinstance(stream.inbox, SampleInbox):
        message |= {"sample_rate": start.sample_rate or stream.inbox.sample_rate}
        message |= {"channels": start.channels, "encoding": start.encoding}
        if start.multichannel:
            message["multichannel"] = True
    if relaxed := {name: value for one in stream.sessions for name, value in one.relaxed.items()}:
        message["relaxed"] = relaxed
    message |= {"takes": _described(model.takes), "gives": _described(model.gives)}
    if model.gives.sample_rate is not None:
        rate = output_rate(model.gives.sample_rate, start.output)
        message["output"] = {"encoding": start.output.encoding, "sample_rate": rate}
    values = dataclasses.asdict(limits)
    return message | {"limits": {key: values[key] for key in TOLD_LIMITS}}


def _described(port: Port) -> dict[str, Any]:
    """A port as "ready" names it."""
    if port.kind == "text":
        return {"kind": "text"}
    return {"kind": "audio", "sample_rate": port.sample_rate, "encodings": list(ENCODINGS)}
