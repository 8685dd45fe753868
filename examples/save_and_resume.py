"""Recognise the first half of a recording, save the stream, and go on with it in another process.

    python examples/save_and_resume.py begin speech/assets/sample.flac stream.snapshot
    python examples/save_and_resume.py resume speech/assets/sample.flac stream.snapshot

The second process says exactly what the first one would have said, though the cut is in the middle of a word.
"""

import sys
from pathlib import Path

from loquent.asr import Recognizer
from loquent.speech import Engine
from loquent.speech.audio.files import read_audio
from loquent.speech.runtime.events import Event, Word


def main(action: str, path: str, saved: str) -> None:
    audio = read_audio(path)
    # Both processes need the same model with the same settings; `restore` refuses a snapshot of any other.
    engine = Engine(Recognizer.from_pretrained("tiny.en").streaming_task())
    if action == "begin":
        session = engine.open(sample_rate=audio.sample_rate)
        show(session.push(audio.samples[: len(audio.samples) // 2]))
        Path(saved).write_bytes(session.snapshot())
        print(f" … {session.nbytes / 1e6:.1f} MB of state saved, the same after a second and after a day")
    else:
        session = engine.restore(Path(saved).read_bytes())
        begin = session.inbox.received  # samples that the stream had been given; the snapshot knows
        print(f"going on at {begin / audio.sample_rate:.2f} s …", end="")
        show(session.push(audio.samples[begin:]) + session.finish())
        print()


def show(events: list[Event]) -> None:
    print("".join(event.text for event in events if isinstance(event, Word)), end="", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
