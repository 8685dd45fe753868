"""A terminal shows what is committed, broken between words, and nothing that was taken back; a pipe gets utterances."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
import unicodedata
from importlib import resources

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.commands.display import LineDisplay, TerminalDisplay, live_display
from loquent.speech.runtime.events import Event, Final, Partial


class Pretended(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(shown: str, width: int, height: int) -> list[str]:
    """The rows to be seen in the end, for the few escape sequences that are used."""
    rows, row, column = [""], 0, 0
    for sequence, count, command, letter in re.findall(r"(\x1b\[(\d*)([A-Za-z]))|(.|\n|\r)", shown):
        if letter == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif letter == "\r":
            column = 0
        elif letter:
            wide = unicodedata.east_asian_width(letter) in "WF"
            # A wide letter takes two places, of which the second is a mark to be removed.
            rows[row] = rows[row].ljust(column)[:column] + letter + "\0" * wide
            column += 1 + wide
            assert column < width, "the terminal would break the line"
        elif command == "A":
            row -= int(count)
            assert row >= len(rows) - height, "the cursor cannot go above the screen"
        elif command == "C":
            column += int(count)
        elif command == "J":
            rows[row:] = [rows[row][:column]]
        else:
            assert command == "m", f"unexpected {sequence!r}"
    return [text.replace("\0", "").rstrip() for text in rows if text.strip()]


def shown(events: list[Event], monkeypatch: pytest.MonkeyPatch, width: int = 20, height: int = 6) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    file = Pretended()
    display = TerminalDisplay(file)
    for event in events:
        display.show(event)
    display.close()
    return file.getvalue()


def test_terminals_and_pipes(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(live_display(Pretended()), TerminalDisplay)
    assert isinstance(live_display(io.StringIO()), LineDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(live_display(Pretended()), LineDisplay)


def test_a_pipe_gets_a_line_an_utterance():
    file = io.StringIO()
    display = LineDisplay(file)
    display.show(Partial(stable=" One", unstable=" to"))
    display.show(Final(text="One two.", start=0, end=1))
    display.show(Final(text="Three.\x1b[2J", start=1, end=2))
    display.close()
    assert file.getvalue() == "One two.\nThree. [2J\n"


def test_the_tail_is_dim_and_replaced(monkeypatch):
    events = [
        Partial(stable="", unstable=" Wreck a nice beach in the sun"),
        Partial(stable=" Recognise", unstable=" speech in"),
        Partial(stable=" Recognise speech", unstable=""),
        Final(text="Recognise speech.", start=0, end=1),
        Partial(stable="", unstable=" never said"),
    ]
    out = shown(events, monkeypatch)
    assert "\x1b[2mWreck a nice beach\n in the sun\x1b[0m".replace("\n ", "\n") in out
    assert screen(out, 20, 6) == ["Recognise speech."]


LETTERS = st.text(st.sampled_from("aé,字ひ "), max_size=30)


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.tuples(LETTERS, LETTERS), max_size=12), width=st.integers(4, 30))
@example(words=[("aaaaaa", ""), ("", "aaa ")], width=4)
def test_only_committed_text_stays(words, width):
    stable, events = "", []
    for word, tail in words:
        stable += " " + word
        events += [Partial(stable=stable, unstable=" " + tail * 3), Partial(stable=stable, unstable=tail)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        rows = screen(shown(events, monkeypatch, width), width, 6)
    assert "".join("".join(rows).split()) == "".join(stable.split())


def test_ctrl_c_brings_the_last_words(tmp_path):
    sample = read_audio(resources.files("loquent.speech") / "assets" / "sample.flac")
    write_audio(tmp_path / "minute.wav", np.tile(sample.samples, 4), sample.sample_rate)  # nobody waits for its end
    ours, theirs = pty.openpty()
    listen = subprocess.Popen(
        [sys.executable, "-m", "loquent.speech", "listen", "--chunk-ms", "2000", "--file", tmp_path / "minute.wav"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "OMP_NUM_THREADS": "1"},
    )
    os.close(theirs)
    out = b""
    try:
        while part := os.read(ours, 65536):
            if b"treaming" in part and b"treaming" not in out:
                listen.send_signal(signal.SIGINT)
            out += part
    except OSError:  # EIO: the process has ended
        pass
    os.close(ours)
    _, complaints = listen.communicate()
    assert listen.returncode == 0, complaints
    assert re.search(rb"\x1b\[2m[Ss]treaming", out)  # not committed yet when the signal came
    (line,) = screen(re.sub(r"\x1b\[2m.*?\x1b\[0m", "", out.decode(), flags=re.DOTALL), 80, 24)
    assert line.lower().startswith("streaming recognition")
