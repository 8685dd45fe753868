"""A request of a Wyoming client: a recording to transcribe, or a text to speak.

::

    transcribe, audio-start, audio-chunk …, audio-stop  ->  transcript-start, transcript-chunk …, transcript,
                                                            transcript-stop
    synthesize                                          ->  audio-start, audio-chunk …, audio-stop
    synthesize-start, synthesize-chunk …,               ->  audio-start, audio-chunk …, audio-stop,
        synthesize, synthesize-stop                         synthesize-stopped
    describe                                            ->  info
    ping                                                ->  pong

Chunks of a transcript are committed words, and come while the recording is still being sent. The ``synthesize`` of a
streaming client has the whole text once more, for servers that cannot stream, and is passed over. What is wrong is told
by ``error``, and ends the connection. Events of other kinds mean nothing here and are dropped, as the protocol wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loquent.speech.audio.resample import HIGHEST_RATE, LOWEST_RATE
from loquent.speech.net.dialect import Dialect, MessageRefused, Phase, integer, refuse, shown, string
from loquent.speech.net.messages import Action, Finish, Say, Start, TextPiece
from loquent.speech.net.models import Models, UnknownModel
from loquent.speech.net.protocol import MAX_CHANNELS, MAX_ITEMS, MAX_NAME
from loquent.speech.net.wyoming.description import description
from loquent.speech.net.wyoming.framing import WyomingEvent
from loquent.speech.runtime.events import Event, Word

WIDTH = 2  # bytes of a sample


class WyomingRequest(Dialect):
    """What is said on a connection up to the end of one request.

    Args:
        models: by name; the first that fits is the default.
    """

    may_wait = carries_speech = True

    def __init__(self, max_text_bytes: int, max_audio_bytes: int, models: Models) -> None:
        super().__init__(max_text_bytes, max_audio_bytes)
        self.models = models
        self._asked: Mapping[str, Any] = {}  # by "transcribe"
        self._form: tuple[int, int] | None = None  # sample rate and channels of the recording under way
        self._pieces = False  # whether the text to speak comes in pieces
        self._transcript = ""

    def receive(self, message: Mapping[str, Any]) -> list[Action]:
        """Take an event, or why what came is none: ``message["event"]``."""
        return self._guarded(self._received, message["event"])

    def told(self, message: Event | dict[str, Any]) -> Sequence[str]:
        """The events that say so."""
        said: list[WyomingEvent] = []
        match message:
            case {"type": "ready", "output": {"sample_rate": rate}}:
                said.append(WyomingEvent("audio-start", _format(rate)))
            case {"type": "ready"}:
                said.append(WyomingEvent("transcript-start"))
            case Word() if self._form is not None:
                piece = message.text if self._transcript else message.text.lstrip()
                self._transcript += piece
                said.append(WyomingEvent("transcript-chunk", {"text": piece}))
            case {"type": "done"} if self._form is not None:
                said.append(WyomingEvent("transcript", {"text": self._transcript.rstrip()}))
                said.append(WyomingEvent("transcript-stop"))
            case {"type": "done"}:
                said.append(WyomingEvent("audio-stop"))
                said += [WyomingEvent("synthesize-stopped")] if self._pieces else []
            case {"type": "failure", "code": code, "message": why}:
                said.append(WyomingEvent("error", {"text": why, "code": code}))
            case {"type": "info" | "pong" as kind, "data": data}:
                said.append(WyomingEvent(kind, data))
        return [event.to_bytes().decode() for event in said]

    def spoken(self, speech: Mapping[str, Any], packets: bytes) -> Sequence[str | bytes]:
        """An ``audio-chunk``."""
        data = {**_format(speech["sample_rate"]), "timestamp": round(1000 * speech["start"])}
        return [WyomingEvent("audio-chunk", data, packets).to_bytes()]

    def _received(self, event: WyomingEvent | MessageRefused) -> Sequence[Action]:
        if isinstance(event, MessageRefused):
            raise event
        match event.type:
            case "describe":
                return [Say({"type": "info", "data": description(self.models)})]
            case "ping":
                return [Say({"type": "pong", "data": {"text": event.data.get("text")}})]
            case "transcribe":
                self._expect(Phase.WAITING, event)
                self._asked = event.data
                return []
            case "audio-start":
                self._expect(Phase.WAITING, event)
                return [self._listen(event.data)]
            case "audio-chunk":
                started = [self._listen(event.data)] if self.phase is Phase.WAITING else []
                if self._form is None or self._form != _form(event.data):
                    refuse("a recording has one format, and no text to speak in between; open another connection")
                return [*started, self._samples(event.payload)]
            case "synthesize" if self._pieces:
                return []
            case "synthesize":
                self._expect(Phase.WAITING, event)
                speaking, text = self._speak(event.data), self._text_of(event.data)
                self.phase = Phase.FINISHING
                return [speaking, text, Finish()]
            case "synthesize-start":
                self._expect(Phase.WAITING, event)
                self._pieces = True
                return [self._speak(event.data)]
            case "synthesize-chunk":
                self._expect(Phase.STREAMING, event, self._pieces)
                return [self._text_of(event.data)]
            case "audio-stop" | "synthesize-stop":
                self._expect(Phase.STREAMING, event, self._pieces == (event.type == "synthesize-stop"))
                self.phase = Phase.FINISHING
                return [Finish()]
            case _:
                return []

    def _expect(self, phase: Phase, event: WyomingEvent, fits: bool = True) -> None:
        if self.phase is not phase or not fits:
            under_way = "no request" if self.phase is Phase.WAITING else "another request"
            refuse(f"got '{event.type}' with {under_way} under way; one request follows another")

    def _listen(self, given: Mapping[str, Any]) -> Start:
        known, asked = self.models.only(lambda model: model.hears), self._asked
        name = _named(asked.get("name"), known, "this server recognises no speech")
        options: dict[str, Any] = {}
        if (language := asked.get("language")) and known[name].has_option("language"):
            options["language"] = _code(language)
        if known[name].has_option("phrases"):
            phrases = [*_phrases(asked, "transcript_names"), *_phrases(asked, "transcript_terms")]
            options |= {"phrases": phrases} if phrases else {}
        self._form = rate, channels = _form(given)
        return self._opened(Start(rate, channels, model=name, options=options))

    def _speak(self, asked: Mapping[str, Any]) -> Start:
        voice, known = asked.get("voice") or {}, self.models.only(lambda model: model.speaks)
        if not isinstance(voice, dict):
            refuse(f"'voice' has to be an object, got {shown(voice)}")
        language = voice.get("language")
        if voice.get("name") is None and language:
            code = _code(language)
            fitting = known.only(lambda model: code in model.languages)
            name = _named(None, fitting, f"no voice of this server speaks {code!r}")
        else:
            name = _named(voice.get("name"), known, "this server has no voice; start it with --speak")
        options: dict[str, Any] = {}
        if voice.get("speaker") is not None:
            options["voice"] = string(voice["speaker"], "'speaker'", MAX_NAME)
        if asked.get("text_format") == "ssml":
            options["ssml"] = True
        return self._opened(Start(model=name, options=options))

    def _text_of(self, data: Mapping[str, Any]) -> TextPiece:
        text = data.get("text")
        return TextPiece(string(text, "'text'", self.max_text_bytes) if text != "" else "")


def _form(data: Mapping[str, Any]) -> tuple[int, int]:
    """Sample rate and channels of a recording."""
    integer(data.get("width"), "width", WIDTH, WIDTH)
    rate = integer(data.get("rate"), "rate", LOWEST_RATE, HIGHEST_RATE)
    return rate, integer(data.get("channels"), "channels", 1, MAX_CHANNELS)


def _format(rate: int) -> dict[str, int]:
    return {"rate": rate, "width": WIDTH, "channels": 1}


def _named(name: Any, known: Models, otherwise: str) -> str:
    """A model by name or alias, or the first one."""
    if not known:
        refuse(otherwise)
    try:
        return known.named(None if name is None else string(name, "'name'", MAX_NAME))
    except UnknownModel as error:
        raise MessageRefused(str(error), "unknown_model") from error


def _code(language: Any) -> str:
    return string(language, "'language'", MAX_NAME).split("-")[0].split("_")[0].lower()


def _phrases(asked: Mapping[str, Any], name: str) -> list[str]:
    phrases = asked.get(name) or []
    if not isinstance(phrases, list) or len(phrases) > MAX_ITEMS:
        refuse(f"'{name}' has to be a list of at most {MAX_ITEMS} texts, got {shown(phrases)}")
    return [string(phrase, f"an entry of '{name}'", MAX_NAME) for phrase in phrases]
