"""Two stages in a row: a recogniser, and a task of our own that corrects words which the recogniser mishears.

    python examples/pipeline.py speech/assets/sample.flac lovely=Lovelace streamed=dreamed

The page docs/how-to/add-a-task.md explains step by step what makes a task.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loquent.asr import Recognizer
from loquent.speech import Engine, Pipeline
from loquent.speech.audio.files import blocks
from loquent.speech.nn.state import State
from loquent.speech.runtime.events import Event, Translation
from loquent.speech.runtime.task import Port, Turn
from loquent.speech.text.words import WordChunk


@dataclass(frozen=True)
class NoOptions:
    """A stream of corrections has no options, and nothing needs to be remembered of it."""

    def to_dict(self) -> dict[str, Any]:
        return {}


class Corrections:
    takes = gives = Port("text")
    Options = NoOptions

    def __init__(self, meant: dict[str, str]) -> None:
        self.meant = meant
        self.fingerprint = f"corrections {sorted(meant.items())}"

    def initial_state(self, slots: int) -> State:
        return State()  # no tensors

    def start(self, options: NoOptions) -> NoOptions:
        return options

    def restore(self, values: dict[str, Any]) -> NoOptions:
        return NoOptions()

    def configure(self, memo: NoOptions, options: NoOptions) -> None:
        pass

    def wants(self, memo: NoOptions) -> int:
        return 1  # a word

    def launch(self, inputs: Sequence[WordChunk], state: State, rows: Any, memos: list[NoOptions]) -> Any:
        return inputs

    def read(self, pending: Sequence[WordChunk]) -> list[Turn]:
        return [Turn(self._corrected(chunk), done=chunk.last) for chunk in pending]

    def interrupt(self, memo: NoOptions, played_s: float | None = None) -> list[Event]:
        return []  # it does not speak

    def end(self, memo: NoOptions) -> None:
        pass

    def _corrected(self, chunk: WordChunk) -> list[Event]:
        text = "".join(word.text for word in chunk.words)  # with the space before it
        heard = text.strip(" .,?!")
        span = (chunk.begin, chunk.begin + len(text))
        return [Translation(text=text.replace(heard, self.meant.get(heard, heard)), span=span)] if heard else []


def main(path: str, *corrections: str) -> None:
    meant = dict(entry.split("=") for entry in corrections)
    recognizer = Recognizer.from_pretrained("tiny.en")
    # Each stage has an engine, and with it a batch of its own.
    stages = {"hear": Engine(recognizer.streaming_task()), "correct": Engine(Corrections(meant))}
    packets = blocks(path, seconds=0.1)
    first = next(packets)
    stream = Pipeline.open(stages, sample_rate=first.sample_rate)
    events = stream.push(first)
    for packet in packets:
        events += stream.push(packet)
    events += stream.finish()
    for stage in stages:  # every event of every stage comes out
        texts = [event.text for event in events if event.stage == stage and event.type in ("word", "translation")]
        print(f"{stage}: {''.join(texts).strip()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
