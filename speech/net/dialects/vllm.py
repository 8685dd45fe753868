"""vLLM's realtime transcription: ``WS /v1/realtime`` without any parameters, a small relative of OpenAI's protocol.

Client: ``session.update`` with ``model`` and ``language``, ``input_audio_buffer.commit`` when it begins,
``input_audio_buffer.append`` (base64, 16-bit PCM at 16 kHz), and ``commit`` with ``"final": true`` at the end. Server:
``session.created``, ``transcription.delta``, ``transcription.done``, ``error``. After the end another recording may
follow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from loquent.speech.net.dialect import MessageRefused, Phase, refuse, shown, string
from loquent.speech.net.dialects.realtime import Realtime
from loquent.speech.net.dialects.responses import new_id
from loquent.speech.net.messages import Action, Renew, Say, Start
from loquent.speech.net.protocol import MAX_NAME
from loquent.speech.runtime.events import Event, Word

SAMPLE_RATE = 16_000  # Hz
THEIR_MODELS = "mistralai/"  # that vLLM serves so: the server's first model


class Vllm(Realtime):
    """A connection of a client of vLLM."""

    def told(self, message: Event | dict[str, Any]) -> Sequence[str]:
        """Words as deltas, and at the end all of them."""
        said: list[dict[str, Any]] = []
        match message:
            case Word():
                delta = message.text if self._transcript else message.text.lstrip()
                self._transcript += delta
                said.append({"type": "transcription.delta", "delta": delta})
            case {"type": "renewed"}:
                said.append({"type": "transcription.done", "text": self._transcript})
                self._transcript = ""
            case {"type": "failure", "code": code, "message": why}:
                said.append({"type": "error", "error": why, "code": code})
            case {"type": "session.created" | "transcription.done" | "error"}:
                said.append(message)
        return [json.dumps(one) for one in said]

    def _query(self, query: Mapping[str, str]) -> Sequence[Action]:
        self._asked = Start(SAMPLE_RATE)
        return [Say({"type": "session.created", "id": new_id("sess"), "created": round(time.time())})]

    def _message(self, message: dict[str, Any]) -> Sequence[Action]:
        match message:
            case {"type": "session.update"}:
                self._take_up(message)
                return []
            case {"type": "input_audio_buffer.append"}:
                return self._append(message.get("audio"))
            case {"type": "input_audio_buffer.commit", "final": True}:
                streaming = self.phase is Phase.STREAMING
                return [Renew() if streaming else Say({"type": "transcription.done", "text": ""})]
            case {"type": "input_audio_buffer.commit"}:  # that a recording begins, which the audio tells, too
                return []
            case _:
                refuse(f"unknown message type {shown(message.get('type'))}")

    def _refusal(self, refusal: MessageRefused) -> dict[str, Any]:
        return {"type": "error", "error": str(refusal), "code": refusal.code}

    def _take_up(self, asked: Mapping[str, Any]) -> None:
        model, language = (
            None if asked.get(name) is None else string(asked[name], f"'{name}'", MAX_NAME)
            for name in ("model", "language")
        )
        if model is not None and model.startswith(THEIR_MODELS):
            model = None
        start = Start(SAMPLE_RATE, model=model, options={"language": language} if language else {})
        if self.phase is Phase.STREAMING and start != self._asked:
            refuse("the model and the language are fixed once there is audio; open another connection")
        self._asked = start
