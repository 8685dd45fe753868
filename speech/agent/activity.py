"""Whether somebody speaks, told frame by frame: what lets an agent fall silent before a recogniser has a word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor

from loquent.speech.audio.endpoint import Endpointer, EndpointMemory, SpeechOptions, SpeechStart
from loquent.speech.audio.vad import FRAME, SAMPLE_RATE, SileroVad, VadState
from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import Fetched
from loquent.speech.runtime.events import Activity, Event
from loquent.speech.runtime.task import Port, Turn, check_fixed
from loquent.speech.runtime.turns import Turns


@dataclass(frozen=True)
class ActivityOptions:
    """Of one stream: there are none."""


@dataclass
class ActivityMemo:
    """What the end-pointer remembers of a stream."""

    endpoint: EndpointMemory

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)


class _Step(NamedTuple):
    memos: list[ActivityMemo]
    fetched: Fetched  # probabilities (B, 1), how many of them, whether the stream ends


class ActivityTask:
    """A `Task` that hears speech begin and end, in steps of 32 ms. It gives `Activity` events and no text.

    Args:
        vad: the network.
        speech: when probabilities are speech. With the default a beginning is known 128 ms after it.
    """

    takes = Port("audio", SAMPLE_RATE)
    gives = Port("text")
    Options = ActivityOptions
    widths = (FRAME,)

    def __init__(self, vad: SileroVad, speech: SpeechOptions | None = None) -> None:
        self.vad, self.speech = vad, speech or SpeechOptions()
        self.fingerprint = f"activity-1 {self.speech}"

    def initial_state(self, slots: int) -> VadState:
        """Pool of ``slots`` streams."""
        return self.vad.initial_state(slots)

    def start(self, options: ActivityOptions) -> ActivityMemo:
        """Begin a stream."""
        return ActivityMemo(EndpointMemory())

    def restore(self, values: dict[str, Any]) -> ActivityMemo:
        """Inverse of ``ActivityMemo.to_dict``."""
        memory = values.get("endpoint")
        if not isinstance(memory, Mapping):
            raise ValueError("not a stream of voice activity")
        return ActivityMemo(EndpointMemory.from_dict(memory))

    def configure(self, memo: ActivityMemo, options: ActivityOptions) -> None:
        """Nothing can be changed."""
        check_fixed(ActivityOptions(), options)

    def wants(self, memo: ActivityMemo) -> int:
        """A frame."""
        return FRAME

    def launch(self, inputs: Chunk, state: VadState, rows: Tensor, memos: list[ActivityMemo]) -> _Step:
        """Compute the probability of the next frame."""
        speech = self.vad.step(inputs, state, rows)
        return _Step(memos, Fetched(speech.data, speech.length, inputs.last))

    def read(self, pending: _Step) -> list[Turn]:
        """Decide by it."""
        probabilities, counts, last = (tensor.tolist() for tensor in pending.fetched.wait())
        turns = Turns(len(pending.memos))
        for i, memo in enumerate(pending.memos):
            with turns.of(i) as events:
                events += self._decided(memo, probabilities[i][: counts[i]], last[i])
        return turns.finish(last[: len(pending.memos)])

    def interrupt(self, memo: ActivityMemo, played_s: float | None = None) -> list[Event]:
        """Nothing: it does not speak."""
        return []

    def end(self, memo: ActivityMemo) -> None:
        """Nothing is held."""

    def _decided(self, memo: ActivityMemo, probabilities: list[float], last: bool) -> list[Event]:
        endpointer = Endpointer(self.speech, (), memo.endpoint)
        decisions = [decision for probability in probabilities for decision in endpointer.feed(probability)]
        decisions += endpointer.finish() if last else []
        return [Activity(speaking=isinstance(one, SpeechStart), time=one.time_s) for one in decisions]
