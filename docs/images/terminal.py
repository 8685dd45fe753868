"""Record a command in a terminal and draw it as an animated SVG, as it was seen.

    python docs/images/terminal.py docs/images/live.svg loquent listen --file speech/assets/sample.flac

The command runs in a pseudo-terminal of COLUMNS, and of as many rows as `--rows` says. Everything it wrote is replayed
at its own pace, with a few seconds' rest at the end. Viewers without animation show the last picture in which some text
could still change.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

COLUMNS = 76
CELL_W, CELL_H, MARGIN, BAR = 8.43, 20, 16, 30  # pixels; 14 px monospace
REST_S = 4.0
SEQUENCE = re.compile(r"\x1b\[(\d*)([A-Za-z])")


@dataclass
class Screen:
    """What a terminal of some height shows: rows of (character, dim) cells; knows the sequences that loquent writes."""

    height: int

    def __post_init__(self) -> None:
        self.rows: list[list[tuple[str, bool]]] = [[]]
        self.row = self.column = 0
        self.dim = False

    def write(self, text: str) -> None:
        """Take output; sequences are never cut, as each is written at once."""
        at = 0
        while at < len(text):
            if match := SEQUENCE.match(text, at):
                self._obey(match[2], int(match[1] or 0))
                at = match.end()
            else:
                self._put(text[at])
                at += 1

    def _obey(self, letter: str, number: int) -> None:
        if letter == "A":
            self.row -= number or 1
        elif letter == "C":
            self.column += number or 1
        elif letter == "J":
            del self.rows[self.row][self.column :], self.rows[self.row + 1 :]
        elif letter == "m":
            self.dim = number == 2

    def _put(self, character: str) -> None:
        if character == "\n":
            self.row += 1
            while len(self.rows) <= self.row:
                self.rows.append([])
        elif character == "\r":
            self.column = 0
        else:
            line = self.rows[self.row]
            line += [(" ", False)] * (self.column + 1 - len(line))
            line[self.column] = (character, self.dim)
            self.column += 1

    def picture(self) -> tuple[tuple[tuple[str, bool], ...], ...]:
        """What is seen now, as runs of (text, dim) per row."""
        rows = []
        for row in self.rows[-self.height :]:
            runs: list[tuple[str, bool]] = []
            for character, dim in row:
                if runs and runs[-1][1] == dim:
                    runs[-1] = (runs[-1][0] + character, dim)
                else:
                    runs.append((character, dim))
            rows.append(tuple(runs))
        return tuple(rows)


def record(command: list[str], height: int) -> list[tuple[float, str]]:
    """Run a command in a terminal; what it wrote, and when, in seconds from its first output."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm-256color"},
        close_fds=True,
    )
    os.close(slave)
    written: list[tuple[float, str]] = []
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # how Linux says that the other end has closed
            break
        if not data:
            break
        written.append((time.monotonic(), data.decode()))
    if process.wait():
        raise SystemExit(f"{shlex.join(command)} ended with status {process.returncode}")
    return [(when - written[0][0], text) for when, text in written]


def draw(command: list[str], written: list[tuple[float, str]], height: int) -> str:
    """The animated SVG."""
    screen = Screen(height)
    screen.write(f"$ {shlex.join(command)}\r\n")
    begin = 1.0  # time to read the command
    pictures = [(0.0, screen.picture())]
    for when, text in written:
        screen.write(text)
        if screen.picture() != pictures[-1][1]:
            pictures.append((begin + when, screen.picture()))
    total = pictures[-1][0] + REST_S
    unsettled = [index for index, (_, rows) in enumerate(pictures) if any(dim for runs in rows for _, dim in runs)]
    still = max(unsettled, default=len(pictures) - 1)
    across, down = round(2 * MARGIN + COLUMNS * CELL_W), BAR + MARGIN + height * CELL_H
    size = f'viewBox="0 0 {across} {down}" width="{across}" height="{down}"'
    style, frames = [], []
    for index, (when, rows) in enumerate(pictures):
        until = pictures[index + 1][0] if index + 1 < len(pictures) else total
        a, b = 100 * when / total, 100 * until / total
        before = "" if index == 0 else f"0%,{a:.2f}%{{visibility:hidden}}"
        after = "" if b >= 100 else f"{b + 0.01:.2f}%,100%{{visibility:hidden}}"
        style.append(
            f"@keyframes k{index}{{{before}{a + 0.01 if index else 0:.2f}%,{b:.2f}%{{visibility:visible}}{after}}}"
        )
        style.append(f"#f{index}{{animation:k{index} {total:.2f}s step-end infinite}}")
        lines = []
        for number, runs in enumerate(rows):
            spans = "".join(f'<tspan class="d">{escape(t)}</tspan>' if dim else escape(t) for t, dim in runs)
            kind = ' class="c"' if number == 0 and len(screen.rows) <= height else ""
            if spans:
                lines.append(f'<text x="{MARGIN}" y="{BAR + CELL_H * (number + 1) - 5}"{kind}>{spans}</text>')
        shown = ' class="f still"' if index == still else ' class="f"'
        frames.append(f'<g id="f{index}"{shown}>' + "".join(lines) + "</g>")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<title>{escape(shlex.join(command))}</title>",
            "<style>",
            "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#e8e6e3;"
            "white-space:pre}.d{fill:#8b8f98;font-style:italic}.c{fill:#7fb4ff}.f{visibility:hidden}.still{visibility:visible}",
            "@media (prefers-reduced-motion: no-preference){",
            *style,
            "}",
            "</style>",
            f'<rect width="{across}" height="{down}" rx="8" fill="#1b1d23"/>',
            *(
                f'<circle cx="{MARGIN + 4 + 18 * i}" cy="15" r="5" fill="{c}"/>'
                for i, c in enumerate(("#ec6a5e", "#f4bf4f", "#61c554"))
            ),
            *frames,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    """Record and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5, help="height of the terminal (default: 5)")
    parser.add_argument("image", type=Path, help="SVG to write")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command, height = arguments.command, arguments.rows
    arguments.image.write_text(draw(command, record(command, height), height), encoding="utf-8")


if __name__ == "__main__":
    main()
