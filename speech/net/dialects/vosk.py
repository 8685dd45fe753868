"""The protocol of vosk-server (alphacep/vosk-server, websocket): a JSON configuration, PCM, ``{"eof": 1}``.

Every message of audio is answered at once, as its clients wait for that: with the text of an utterance that has ended
since the last answer, or with what is being said::

    {"partial": "…"}
    {"result": [{"conf": 0.98, "start": 0.3, "end": 0.6, "word": "…"}, …], "text": "…"}
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from loquent.speech.audio.resample import HIGHEST_RATE, LOWEST_RATE
from loquent.speech.net.dialect import Dialect, Phase, integer, refuse, shown, string
from loquent.speech.net.messages import Action, Finish, Renew, Say, Start
from loquent.speech.net.protocol import MAX_ITEMS, MAX_NAME
from loquent.speech.runtime.events import Event, Final, Partial, Word

USUAL_RATE = 8000  # Hz, of a client that says nothing about it, as in vosk-server
CONFIGURATION = ("sample_rate", "words", "phrase_list", "model", "max_alternatives")


class Vosk(Dialect):
    """A connection of a client of vosk-server."""

    def __init__(self, max_text_bytes: int = 65_536, max_audio_bytes: int = 1_048_576) -> None:
        super().__init__(max_text_bytes, max_audio_bytes)
        self._partial = ""
        self._words: list[Word] = []  # of the utterance under way
        self._results: deque[dict[str, Any]] = deque()

    def told(self, message: Event | dict[str, Any]) -> Sequence[str]:
        """Nothing until the client sends audio, or ends."""
        match message:
            case Partial():
                self._partial = (message.stable + message.unstable).strip()
            case Word():
                self._words.append(message)
            case Final():
                self._results.append(self._result(message.text))
                self._words, self._partial = [], ""
            case {"type": "heard"}:
                result = self._results.popleft() if self._results else {"partial": self._partial}
                return [json.dumps(result)]
            case {"type": "renewed" | "done"}:
                rest, self._results = list(self._results), deque()
                words = [word for result in rest for word in result["result"]]
                return [json.dumps({"result": words, "text": " ".join(result["text"] for result in rest)})]
            case {"type": "failure", "message": why}:
                return [json.dumps({"error": why})]
        return []

    def _message(self, message: dict[str, Any]) -> Sequence[Action]:
        if "eof" in message:
            started = self._begun(USUAL_RATE)
            self.phase = Phase.FINISHING
            return [*started, Finish()]
        if "reset" in message:
            return [*self._begun(USUAL_RATE), Renew()]
        if isinstance(message.get("config"), dict):
            return [self._configured(message["config"])]
        refuse(f"expected 'config', an object, or 'eof' or 'reset', got {shown(message)}")

    def _audio(self, data: bytes) -> Sequence[Action]:
        return [*self._begun(USUAL_RATE), self._samples(data), Say({"type": "heard"})]

    def _begun(self, sample_rate: int) -> Sequence[Action]:
        """Open the stream if nobody has; refuse what comes after its end."""
        if self.phase is Phase.FINISHING:
            refuse("nothing may follow 'eof'; open another connection for more")
        return [] if self.phase is Phase.STREAMING else [self._opened(Start(sample_rate))]

    def _configured(self, asked: dict[str, Any]) -> Action:
        if self.phase is not Phase.WAITING:
            refuse("'config' has to come before the audio")
        if unknown := asked.keys() - set(CONFIGURATION):
            refuse(f"'config' has {shown(min(unknown))}; expected some of {', '.join(CONFIGURATION)}")
        if integer(asked.get("max_alternatives", 0), "max_alternatives", 0, 100) > 1:
            refuse("'max_alternatives' may be 1 at most: this server gives the best text")
        phrases = asked.get("phrase_list") or []
        if not isinstance(phrases, list) or len(phrases) > MAX_ITEMS:
            refuse(f"'phrase_list' has to be a list of at most {MAX_ITEMS} texts, got {shown(phrases)}")
        phrases = [string(phrase, "a phrase", MAX_NAME) for phrase in phrases]
        rate = asked.get("sample_rate", USUAL_RATE)
        rate = int(rate) if isinstance(rate, float) and rate.is_integer() else rate
        return self._opened(
            Start(
                integer(rate, "sample_rate", LOWEST_RATE, HIGHEST_RATE),
                model=string(asked["model"], "'model'", MAX_NAME) if asked.get("model") else None,
                options={"phrases": phrases} if phrases else {},
            )
        )

    def _result(self, text: str) -> dict[str, Any]:
        words = [
            {
                "conf": round(word.confidence, 6),
                "start": round(self.offset_s + word.start, 3),
                "end": round(self.offset_s + word.end, 3),
                "word": word.text.strip(),
            }
            for word in self._words
        ]
        return {"result": words, "text": text.strip()}
