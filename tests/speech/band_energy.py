"""A small but real streaming task: three levels that follow the loudness of a stream, read out as words.

Run as a script it serves itself: ``python band_energy.py PORT [FOLDER]``, with sessions in the folder.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from loquent.speech.nn.state import State, initial
from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.events import Event, Final, Partial, Word
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.task import Port, Turn

RATE, FRAME = 16_000, 160


@dataclass(frozen=True)
class BandOptions:
    """
    chunk_ms:  audio of a step.
    padding:   characters added to every partial result.
    fail_at:   frame at which this stream breaks down.
    break_at:  frame at which the whole batch breaks down.
    """

    chunk_ms: int = 100
    padding: int = 0
    fail_at: int | None = None
    break_at: int | None = None

    def __post_init__(self) -> None:
        if not 10 <= self.chunk_ms <= 1000:
            raise ValueError(f"chunk_ms {self.chunk_ms} is outside 10 … 1000")
        if not 0 <= self.padding <= 1_000_000:
            raise ValueError(f"padding {self.padding} is outside 0 … 1000000")


@dataclass
class Levels(State):
    frames: Tensor  # (S,) int64
    level: Tensor = initial(1)  # (S, 3) int64, exponential averages at three speeds  # noqa: RUF009


@dataclass
class Notes:
    chunk_ms: int
    padding: int
    fail_at: int | None
    break_at: int | None
    words: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class BandEnergy:
    """All arithmetic on integers, so that results can be compared exactly."""

    takes, gives = Port("audio", RATE), Port("text")
    fingerprint = "band energy"
    Options = BandOptions

    def __init__(self) -> None:
        self.gate = threading.Event()  # clear it to hold the model in its step
        self.gate.set()

    def initial_state(self, slots: int) -> Levels:
        return Levels(torch.zeros(slots, dtype=torch.long), torch.ones(slots, 3, dtype=torch.long))

    def start(self, options: BandOptions) -> Notes:
        return Notes(**asdict(options))

    def configure(self, memo: Notes, options: BandOptions) -> None:
        if options.padding != memo.padding:
            raise ValueError("padding is fixed at the start of a stream")
        memo.chunk_ms = options.chunk_ms

    def restore(self, values: dict[str, Any]) -> Notes:
        notes = parse_options(Notes, values)
        BandOptions(notes.chunk_ms, notes.padding, notes.fail_at, notes.break_at)
        return notes

    def wants(self, memo: Notes) -> int:
        return memo.chunk_ms * RATE // 1000

    def launch(self, inputs: Chunk, state: Levels, rows: Tensor, memos: list[Notes]) -> Any:
        self.gate.wait()
        return inputs, state, rows, memos, state.frames[rows] + -(-inputs.length // FRAME)

    def read(self, pending: Any) -> list[Turn]:
        inputs, state, rows, memos, frames = pending
        for memo, reached in zip(memos, frames.tolist(), strict=False):
            if memo.break_at is not None and reached >= memo.break_at:
                raise RuntimeError(f"broke down at frame {reached}")
        turns = []
        for memo, values, row, last in zip(memos, inputs.rows(), rows.tolist(), inputs.last.tolist(), strict=False):
            try:
                turns.append(Turn(self._row(values, state, row, last, memo), last))
            except RuntimeError as error:
                turns.append(Turn([], True, error))
        return turns

    def interrupt(self, memo: Notes, played_s: float | None = None) -> list[Event]:
        return []

    def end(self, memo: Notes) -> None:
        pass

    def _row(self, values: Tensor, state: Levels, row: int, last: bool, memo: Notes) -> list[Event]:
        loud = (values * 32768).round().long().abs()
        for frame in loud.split(FRAME):
            state.frames[row] += 1
            for speed in range(3):
                state.level[row, speed] += (frame.sum() - state.level[row, speed]) // 2 ** (speed + 1)
        frames = int(state.frames[row])
        if memo.fail_at is not None and frames >= memo.fail_at:
            raise RuntimeError(f"failed at frame {frames}")
        word = " " + "/".join(str(level) for level in state.level[row].tolist())
        memo.words += (word,)
        time = frames * FRAME / RATE
        events: list[Event] = [
            Partial(stable=str(frames), unstable=str(len(values)) + "." * memo.padding),
            Word(text=word, start=0.0, end=time, confidence=1.0),
        ]
        if last or len(memo.words) == 10:
            events.append(Final(text="".join(memo.words), start=0.0, end=time))
            memo.words = ()
        return events


if __name__ == "__main__":
    from pathlib import Path

    from loquent.speech.net.limits import Limits
    from loquent.speech.net.server import create_app, serve
    from loquent.speech.runtime.engine import Engine

    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    limits = Limits(session_every_s=0.5, max_load=1e9)
    serve(create_app(Engine(BandEnergy(), capacity=8), limits, session_folder=folder), port=int(sys.argv[1]))
