"""What a server offers by name: an engine, or several in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.stream import Stream
from loquent.speech.runtime.task import Port


@dataclass(frozen=True)
class Model:
    """A name that clients may ask for.

    stages: engines by the name of the stage; one of them makes plain sessions, several pipelines.
    """

    stages: Mapping[str, Engine]

    @property
    def takes(self) -> Port:
        """What goes in."""
        return next(iter(self.stages.values())).task.takes

    @property
    def gives(self) -> Port:
        """What comes out at the end."""
        return [*self.stages.values()][-1].task.gives

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

    def open(self, *, sample_rate: int | None = None, channels: int = 1, **options: Any) -> Stream:
        """Start a stream; see `Engine.open` and `Pipeline.open`."""
        if len(self.stages) > 1:
            return Pipeline.open(self.stages, sample_rate=sample_rate, channels=channels, **options)
        (engine,) = self.stages.values()
        return engine.open(sample_rate=sample_rate, channels=channels, **options)


def models_of(engines: Engine | Mapping[str, Engine | Mapping[str, Engine]]) -> dict[str, Model]:
    """Models by name, of an engine, of engines by name, or of rows of engines by name.

    Raises:
        ValueError: there is none.
    """
    if isinstance(engines, Engine):
        return {"default": Model({"": engines})}
    if not engines:
        raise ValueError("a server needs at least one engine, got an empty mapping")
    return {name: Model({"": one} if isinstance(one, Engine) else dict(one)) for name, one in engines.items()}
