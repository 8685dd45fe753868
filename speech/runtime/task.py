"""What a task is: the contract between a model and the runtime, which knows nothing else about it.

Recognition, synthesis, translation and whatever comes next are tenants of the same `Engine`, `Session`, protocol,
server and command line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from loquent.speech.nn.state import State
    from loquent.speech.nn.streaming import Chunk
    from loquent.speech.runtime.events import Event
    from loquent.speech.text.words import WordChunk


@dataclass(frozen=True)
class Port:
    """What goes into a task, or comes out of it.

    sample_rate: of audio, in Hz.
    """

    kind: Literal["audio", "text"]
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        if (self.kind == "audio") != (self.sample_rate is not None):
            raise ValueError(f"a port of audio has a sample rate and one of text has none, got {self!r}")


class Turn(NamedTuple):
    """What one step of one stream brought.

    events: in order; the session stamps them.
    done:   whether the stream is over. A recogniser ends with its input; a generator goes on after its input has ended.
    error:  why the stream cannot go on, if it cannot; its batch mates are not concerned.
    """

    events: list[Event]
    done: bool = False
    error: Exception | None = None


class Memo(Protocol):
    """What a task remembers of one stream on the host (hypotheses, options): a dataclass of JSON-able values."""

    def to_dict(self) -> dict[str, Any]: ...


Inputs: TypeAlias = "Chunk | Sequence[WordChunk]"  # of a batch: samples (B, N), or each stream's words


@runtime_checkable
class Restorable(Protocol):
    """A task that can tell more of a saved stream than its memo and its state do each by itself."""

    def check_restored(self, memo: Any, state: Any) -> None:
        """Make sure that a restored memo and a restored slot (a state of one stream) belong together.

        Raises:
            ValueError: they do not.
        """


@runtime_checkable
class Previewing(Protocol):
    """A task of text that can show what would come of words that may still change: of each `WordChunk.draft`.

    What it commits does not depend on them.
    """

    def previews(self, memo: Any) -> bool:
        """Whether a stream asks for it; otherwise it gets no drafts."""


@runtime_checkable
class Overhearing(Protocol):
    """A task whose `Word` events are what it heard, beside the text that it gives to a next stage."""

    overhears: Literal[True]


@runtime_checkable
class Shaped(Protocol):
    """A task of audio whose steps come in few shapes.

    widths: samples that the rows of a batch are padded to in static mode, ascending; no step wants more than the last.
    """

    widths: tuple[int, ...]


@runtime_checkable
class Relaxing(Protocol):
    """A task whose streams may be given a larger look-ahead than they asked for, where time is scarce."""

    def relaxed(self, options: Any) -> Sequence[Any]:
        """The options with each larger look-ahead that the model was made for, the smallest first."""


@dataclass(frozen=True)
class Offer:
    """What the streams of a task can be given; what is empty is not told.

    languages:    codes of those that it hears, reads or speaks.
    latencies_ms: values of the option ``chunk_ms``, the default first.
    voices:       names for the option ``voice``, the default first.
    to_english:   whether the option ``task`` makes English text of speech in other languages.
    """

    languages: tuple[str, ...] = ()
    latencies_ms: tuple[int, ...] = ()
    voices: tuple[str, ...] = ()
    to_english: bool = False


@runtime_checkable
class Offering(Protocol):
    """A task that can tell what its streams may choose from, to somebody who is to be shown a choice."""

    def offer(self) -> Offer:
        """The choice."""


class Task(Protocol):
    """What an engine drives: a model with a pool of slots.

    Each task has its own kinds of state, memo and options, and is given back only what it made: hence `Any`.

    takes, gives: its ports.
    fingerprint:  of weights and settings: two tasks that have the same one continue each other's streams.
    Options:      the options of one stream, a frozen dataclass with a default for every field. It is their only
                  description: Python, the protocol, the command line and YAML read it.
    """

    takes: Port
    gives: Port
    fingerprint: str
    Options: type[Any]

    def initial_state(self, slots: int) -> State:
        """Pool of ``slots`` streams."""

    def start(self, options: Any) -> Memo:
        """Begin a stream.

        Raises:
            ValueError: the model cannot do what the options ask.
        """

    def restore(self, values: dict[str, Any]) -> Memo:
        """Inverse of ``Memo.to_dict``; the values may come from anywhere.

        Raises:
            ValueError: they are not those of a stream of this task.
        """

    def configure(self, memo: Any, options: Any) -> None:
        """Change options of a stream under way, from the step after its next one at the latest.

        Args:
            options: all of them, those that stay included.

        Raises:
            ValueError: one of them is fixed at the start of a stream, or wrong; nothing is changed.
        """

    def wants(self, memo: Any) -> int | None:
        """What the stream's next step takes: a number of samples (at the port's rate) or words; 0: it can step without
        input; None: it can do nothing until it is interrupted or ended by its session."""

    def launch(self, inputs: Any, state: Any, rows: Tensor, memos: list[Any]) -> Any:
        """Advance streams by one step each: the device's work, without waiting for it.

        Args:
            inputs: a `Chunk` of samples (B, N) on the pool's device, or a `WordChunk` for each stream. A stream that
                got less than it wanted ends here, or with words was flushed here.
            state: the pool, updated in place.
            rows: (B,) int64 slots of the streams, on the pool's device. Of a static chunk, those behind the streams'
                are empty, in a slot that no stream has.
            memos: of the streams.

        Returns:
            What `read` needs.
        """

    def read(self, pending: Any) -> list[Turn]:
        """The host's work on one launched step: it may wait for what was launched, best for one copy (`Fetched`).

        A task that decides on the host between its calls of the device does all of its work here.
        """

    def interrupt(self, memo: Any, played_s: float | None = None) -> list[Event]:
        """Stop what is being said, between two steps; what follows is said as if nothing had been under way.

        Args:
            played_s: seconds of the stream's speech that were heard, at most what was given out, which is the default.

        Returns:
            An `Interrupted` with what was heard; nothing from a task that does not speak.
        """

    def end(self, memo: Any) -> None:
        """A stream that began or was restored here takes no further step."""


def check_fixed(before: Any, after: Any, changeable: Collection[str] = ()) -> None:
    """Refuse to change options of a stream that are fixed at its start, for `Task.configure`.

    Args:
        before, after: all options, of one dataclass.
        changeable: names of those that are not fixed.

    Raises:
        ValueError: a fixed one differs.
    """
    names = [field.name for field in dataclasses.fields(before) if field.name not in changeable]
    public = {field: name for name, field in getattr(before, "aliases", {}).items()}
    if changed := [public.get(name, name) for name in names if getattr(before, name) != getattr(after, name)]:
        raise ValueError(f"{', '.join(changed)}: fixed at the start of a stream; open another one to change it")
