"""What a server offers by name: an engine, or several in a row; and the other names that clients have for it."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from loquent.speech.agent.agent import Agent
from loquent.speech.bilingual import RECOGNITION, TRANSLATION
from loquent.speech.runtime.channels import Channels
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.snapshot import Unpacked
from loquent.speech.runtime.stream import Stream
from loquent.speech.runtime.task import Offer, Offering, Port
from loquent.speech.text.languages import only_language

# Beginnings of the names of other services' models, which their clients send unless they are told otherwise.
OPENAI_MODELS = ("gpt-", "whisper-1")  # that hear
OPENAI_VOICE_MODELS = ("gpt-", "tts-1")
DEEPGRAM_MODELS = ("nova", "flux", "enhanced", "base-", "whisper")
_TASKS = {
    ("audio", "text"): "recognition",
    ("text", "audio"): "synthesis",
    ("text", "text"): "translation",
    ("audio", "audio"): "interpretation",
}


@dataclass(frozen=True)
class Model:
    """A name that clients may ask for.

    stages: engines by the name of the stage; one of them makes plain sessions, several pipelines.
    translators: of the text that comes out, by the codes of the languages that they translate from and to; a stream
        asks for one with the option ``translate_to``.
    voices: other names of voices, for the option ``voice``.
    name: that clients ask for.
    """

    stages: Mapping[str, Engine]
    translators: Mapping[tuple[str, str], Engine] = field(default_factory=dict)
    voices: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    @property
    def takes(self) -> Port:
        """What goes in."""
        return next(iter(self.stages.values())).task.takes

    @property
    def gives(self) -> Port:
        """What comes out at the end."""
        return [*self.stages.values()][-1].task.gives

    @property
    def hears(self) -> bool:
        """Whether it makes text of audio."""
        return self.task == "recognition"

    @property
    def speaks(self) -> bool:
        """Whether it makes audio of text."""
        return self.task == "synthesis"

    @property
    def task(self) -> str:
        """What it does, in metrics and logs."""
        return _TASKS[self.takes.kind, self.gives.kind]

    @property
    def talks(self) -> bool:
        """Whether it is somebody to talk with."""
        return False

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of those that it hears, or else speaks; none if it does not say."""
        return (self.heard if self.takes.kind == "audio" else self.said).languages

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names for the option ``voice``; none if it does not say."""
        return self.said.voices

    @property
    def heard(self) -> Offer:
        """What its first stage offers."""
        return _offered(next(iter(self.stages.values())))

    @property
    def said(self) -> Offer:
        """What its last stage offers."""
        return _offered([*self.stages.values()][-1])

    @property
    def active(self) -> int:
        """Streams of the stage that has most; an engine may belong to several models."""
        return max(engine.active for engine in self.stages.values())

    @property
    def capacity(self) -> int:
        """Streams that fit at a time."""
        return min(engine.capacity for engine in self.stages.values())

    def has_option(self, name: str) -> bool:
        """Whether a stage has an option of this name."""
        kinds = [engine.task.Options for engine in self.stages.values()]
        return any(name == field.name for kind in kinds for field in dataclasses.fields(kind))

    def asked(self, options: Mapping[str, Any]) -> tuple[Model, dict[str, Any]]:
        """What a stream with these options is opened on: with ``translate_to``, a translator is the last stage.

        Speech whose language is not told is taken to be in the one that is translated from.

        Raises:
            ValueError: nothing translates so.
        """
        chosen = dict(options)
        target = chosen.pop("translate_to", None)
        if target is None:
            return self, chosen
        spoken = chosen.get("language")
        spoken = only_language(spoken) if isinstance(spoken, str) else None
        written = "en" if chosen.get("task") == "translate" else spoken
        fitting = [pair for pair in self.translators if pair[1] == target and written in (None, pair[0])]
        if not fitting:
            known = ", ".join(f"{source} to {other}" for source, other in self.translators) or "nothing"
            wanted = f"{target!r} from {written!r}" if written else f"{target!r}"
            raise ValueError(f"translate_to: this model does not translate to {wanted}; it translates {known}")
        pair = fitting[0]
        if spoken is None and written is None and self.has_option("language"):
            chosen["language"] = pair[0]
        stages = {name or RECOGNITION: engine for name, engine in self.stages.items()}
        return Model({**stages, TRANSLATION: self.translators[pair]}, name=self.name), chosen

    def open(
        self,
        *,
        sample_rate: int | None = None,
        channels: int = 1,
        multichannel: bool = False,
        stream: str | None = None,
        pressure: float = 0.0,
        **options: Any,
    ) -> Stream:
        """Start a stream; see `Engine.open` and `Pipeline.open`.

        Args:
            multichannel: make a stream of each channel; see `Channels.open`.
        """
        if multichannel:
            if not self.hears:
                raise ValueError("multichannel: only what makes text of audio hears channels apart; leave it out")
            alone = functools.partial(self.open, sample_rate=sample_rate, pressure=pressure, **options)
            return Channels.open(channels, lambda name: alone(stream=name))
        asked: dict[str, Any] = {"sample_rate": sample_rate, "channels": channels, "pressure": pressure}
        if isinstance(voice := options.get("voice"), str):
            options["voice"] = self.voices.get(voice, voice)
        return self._open(**asked, stream=stream, **options)

    def _open(self, **asked: Any) -> Stream:
        if len(self.stages) > 1:
            return Pipeline.open(self.stages, **asked)
        (engine,) = self.stages.values()
        return engine.open(**asked)

    def restore(self, snapshot: bytes | Unpacked, multichannel: bool = False) -> Stream:
        """Go on with a stream; see `Engine.restore`, `Pipeline.restore` and `Channels.restore`."""
        if multichannel:
            return Channels.restore(snapshot, self.restore)
        if len(self.stages) > 1:
            return Pipeline.restore(snapshot, self.stages)
        (engine,) = self.stages.values()
        return engine.restore(snapshot)


@dataclass(frozen=True)
class AgentModel(Model):
    """An agent that clients may talk with."""

    agent: Agent = field(kw_only=True)

    @property
    def task(self) -> str:
        """See `Model.task`."""
        return "conversation"

    @property
    def talks(self) -> bool:
        """See `Model.talks`."""
        return True

    def _open(self, **asked: Any) -> Stream:
        """Start a talk; clients cannot make its audio wait."""
        if "patient" in asked:
            raise ValueError("patient: unknown; live audio does not wait")
        return self.agent.open(**asked)

    def restore(self, snapshot: bytes | Unpacked, multichannel: bool = False) -> Stream:
        """Go on with a talk; see `Agent.restore`."""
        return self.agent.restore(snapshot)


class UnknownModel(ValueError):
    """There is no model of the name that a client asks for."""


class Models(MutableMapping[str, Model]):
    """Models by name, as they come and go; the first is that of clients that name none.

    Args:
        aliases: further names, by each the name of the model that it stands for.

    Raises:
        ValueError: an alias is a model's own name, or stands for none.
    """

    def __init__(self, models: Mapping[str, Model], aliases: Mapping[str, str] | None = None) -> None:
        self._models, self._aliases = dict(models), dict(aliases or {})
        self._fits: Callable[[Model], bool] = lambda model: True
        for alias, name in self._aliases.items():
            if alias in self or not alias:
                raise ValueError(f"alias {alias!r} is the name of a model itself; choose another one")
            if name not in self:
                raise ValueError(f"alias {alias!r} stands for {name!r}, which is none of {', '.join(self)}")

    def __getitem__(self, name: str) -> Model:
        if not self._fits(model := self._models[name]):
            raise KeyError(name)
        return model

    def __setitem__(self, name: str, model: Model) -> None:
        self._models[name] = model

    def __delitem__(self, name: str) -> None:
        del self._models[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, model in self._models.items() if self._fits(model))

    def __len__(self) -> int:
        return sum(map(self._fits, self._models.values()))

    @property
    def aliases(self) -> Mapping[str, str]:
        """Further names, by each the name of the model that it stands for now."""
        return {alias: name for alias, name in self._aliases.items() if name in self and alias not in self._models}

    def named(self, asked: str | None, foreign: tuple[str, ...] = ()) -> str:
        """The name of the model that a client means.

        In this order: a model's own name, an alias, no name or another service's, which is the first model.

        Args:
            foreign: beginnings of the other service's names.

        Raises:
            UnknownModel: it is none of these.
        """
        name = self.aliases.get(asked or "", asked or "")
        if name in self:
            return name
        if self and (not asked or asked.startswith(foreign)):
            return next(iter(self))
        raise UnknownModel(f"no model {(asked or '')[:100]!r}; this server has {', '.join([*self, *self.aliases])}")

    def only(self, fits: Callable[[Model], bool]) -> Models:
        """Some of them, with their aliases; they come and go with the others."""
        some = copy.copy(self)
        some._fits = fits
        return some


def offer_of(name: str, model: Model) -> dict[str, Any]:
    """What clients can choose from, as ``/v1/offer`` tells it.

    Latencies are those of the first stage, voices those of the last one. Each translation has the options that ask for
    it.
    """
    translations: list[dict[str, Any]] = [
        {"from": source, "to": target, "options": {"translate_to": target} | _drafting(engine)}
        for (source, target), engine in model.translators.items()
    ]
    if model.heard.to_english:
        translations.append({"from": None, "to": "en", "options": {"task": "translate"}})
    return {
        "name": name,
        "takes": dataclasses.asdict(model.takes),
        "gives": dataclasses.asdict(model.gives),
        "stages": list(model.stages),
        "talks": model.talks,
        "languages": list(model.languages),
        "latencies_ms": list(model.heard.latencies_ms),
        "voices": list(model.speakers),
        "translations": translations,
    }


def _offered(engine: Engine) -> Offer:
    return engine.task.offer() if isinstance(engine.task, Offering) else Offer()


def _drafting(engine: Engine) -> dict[str, Any]:
    """The option of a translator to show what it has not committed, if it has it."""
    return {"drafts": True} if any(field.name == "drafts" for field in dataclasses.fields(engine.task.Options)) else {}


def models_of(
    engines: Engine | Mapping[str, Engine | Mapping[str, Engine] | Agent],
    translators: Mapping[tuple[str, str], Engine] | None = None,
    aliases: Mapping[str, str] | None = None,
    voices: Mapping[str, str] | None = None,
) -> Models:
    """Models by name, of an engine, or of engines, rows of engines and agents by name.

    Args:
        translators: for those that make text of speech.
        aliases: see `Models`.
        voices: other names of voices, of those that speak.

    Raises:
        ValueError: there is none, or an alias is wrong.
    """
    if isinstance(engines, Engine):
        engines = {"default": engines}
    if not engines:
        raise ValueError("a server needs at least one engine, got an empty mapping")
    translating = {} if translators is None else translators  # the server's own, where more may come
    return Models({name: model_of(name, one, translating, voices or {}) for name, one in engines.items()}, aliases)


def model_of(
    name: str,
    engines: Engine | Mapping[str, Engine] | Agent,
    translators: Mapping[tuple[str, str], Engine],
    voices: Mapping[str, str],
) -> Model:
    """A model of an engine, of engines in a row, or of an agent, with what is for it of the rest."""
    if isinstance(engines, Agent):
        return AgentModel(engines.stages, voices=voices, name=name, agent=engines)
    model = Model({"": engines} if isinstance(engines, Engine) else dict(engines), name=name)
    return replace(
        model,
        translators=translators if model.hears else {},
        voices=voices if model.gives.kind == "audio" else {},
    )
