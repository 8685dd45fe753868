"""Make docs/samples/talk.opus: both sides of a talk in which a user breaks in.

    python docs/images/talk.py

Needs the models of the extras tiny-en and hibari. The chat model is a script, and the user a voice; that the agent
hears, waits, speaks and falls silent is real. Prints what was said.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from page import ANSWERS, ROOT, answering

from loquent.speech.audio.files import read_audio, write_audio
from loquent.tts import Synthesizer

REPLIES = ANSWERS | {"Thank you, that is enough.": "You are welcome."}
PAUSES_S = (4.7, 3.4, 1.9)  # after what the user says, who breaks in at last
RATE = 24_000  # of the voices


def main() -> None:
    """Let them talk, and lay one side over the other."""
    chat = answering(REPLIES)
    voice = Synthesizer.from_pretrained("loquent/voice")
    parts = []
    for text, pause_s in zip(REPLIES, PAUSES_S, strict=True):
        parts += [voice.synthesize(text, voice="alto").samples, np.zeros(round(pause_s * RATE), np.float32)]
    with tempfile.TemporaryDirectory() as name:
        asked, answered = Path(name) / "asked.wav", Path(name) / "answered.wav"
        write_audio(asked, np.concatenate(parts), RATE)
        command = [sys.executable, "-m", "loquent.speech", "talk", "--chat", chat.url, "--chat-model", "scripted"]
        command += ["--speak", "loquent/hibari", "--input", str(asked), "--output", str(answered)]
        try:
            subprocess.run(command, check=True)
        finally:
            chat.close()
        sides = [read_audio(path, RATE).samples for path in (asked, answered)]
    both = np.zeros(max(map(len, sides)), np.float32)
    for side in sides:
        both[: len(side)] += side
    write_audio(ROOT / "docs" / "samples" / "talk.opus", both, RATE)


if __name__ == "__main__":
    main()
