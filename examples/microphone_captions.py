"""Live captions in the terminal, from a microphone or from a recording that is played at its own speed.

    python examples/microphone_captions.py                              # the default microphone; Ctrl-C ends
    python examples/microphone_captions.py speech/assets/sample.flac

Bright words are committed: they will not change any more. Dim words are what the model hears at the moment.
"""

import asyncio
import contextlib
import shutil
import sys

from loquent.asr import Recognizer
from loquent.speech.audio.sources import file_source, microphone_source
from loquent.speech.runtime.events import Event, Final, Partial


async def main(arguments: list[str]) -> None:
    recognizer = Recognizer.from_pretrained("tiny.en")
    # A source gives packets of samples at its own rate; the session resamples them for the model.
    source = file_source(arguments[0], realtime=True) if arguments else microphone_source()
    session = recognizer.session(sample_rate=source.sample_rate, channels=source.channels)
    with contextlib.suppress(asyncio.CancelledError):  # what Ctrl-C does to the loop
        async for packet in source:
            show(session.push(packet))
    show(session.finish())  # the last words


def show(events: list[Event]) -> None:
    for event in events:
        match event:
            case Partial(stable=stable, unstable=unstable):
                # The end of the utterance, in one line of the terminal, written over the one before.
                hidden = max(len(stable + unstable) - shutil.get_terminal_size().columns + 1, 0)
                certain, open_ = stable[hidden:], unstable[max(hidden - len(stable), 0) :]
                print(f"\r\x1b[K{certain}\x1b[2m{open_}\x1b[0m", end="", flush=True)
            case Final(text=text):
                print(f"\r\x1b[K{text.strip()}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
