"""Many live streams on one model: whoever has audio is computed in the same batch.

    python examples/many_streams.py speech/assets/sample.flac 8

Eight callers play the same recording. Each begins a little later than the one before, so all are at different places
in it. Their texts are the same to the last letter: a stream does not depend on who shares its batch.
"""

import sys
import time

from loquent.asr import Recognizer
from loquent.speech import Engine
from loquent.speech.audio.files import read_audio
from loquent.speech.runtime.events import Word

PACKET = 1600  # samples, a tenth of a second
DELAY = 3  # packets from one caller to the next


def main(path: str, callers: int) -> None:
    samples = read_audio(path, sample_rate=16_000).samples
    packets = [samples[at : at + PACKET] for at in range(0, len(samples), PACKET)]
    recognizer = Recognizer.from_pretrained("tiny.en")

    # The engine has a slot for each stream, and runs the model for all that are ready.
    engine = Engine(recognizer.streaming_task(), capacity=callers)
    streams = [engine.open() for _ in range(callers)]
    texts = [""] * callers
    sizes: list[int] = []
    begin = time.perf_counter()
    for tick in range(len(packets) + DELAY * callers):
        for caller, stream in enumerate(streams):
            at = tick - DELAY * caller
            if 0 <= at < len(packets):
                stream.feed(packets[at])  # only keeps the audio; `push` would step the model too
            if at == len(packets):
                stream.end()
        while streams_in_step := engine.step():  # until nobody has a whole chunk of audio
            sizes.append(streams_in_step)
        for caller, stream in enumerate(streams):
            texts[caller] += "".join(event.text for event in stream.drain() if isinstance(event, Word))
    seconds = time.perf_counter() - begin

    print(f"{callers} streams of {len(samples) / 16_000:.1f} s in {seconds:.1f} s")
    print(f"{len(sizes)} steps of {sum(sizes) / len(sizes):.1f} streams on average")
    print(f"{len(set(texts))} text among {callers}: {texts[0].strip()}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
