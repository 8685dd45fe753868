"""A small but real synthesiser: it spells words as tones, a letter a step, long after its text has ended.

A word is spoken once the next one is known, as the last letter glides to it, or once the text was flushed or has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from loquent.speech.nn.state import State
from loquent.speech.nn.transfer import staged
from loquent.speech.runtime.events import Event, Interrupted, Speech
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.task import Port, Turn
from loquent.speech.text.words import WordChunk

RATE, LETTER = 8000, 320  # samples of a letter


@dataclass(frozen=True)
class ToneOptions:
    """
    pitch:   Hz of the letter a.
    fail_on: a letter at which the stream breaks down.
    """

    pitch: float = 200.0
    fail_on: str = ""


@dataclass
class Phase(State):
    position: Tensor  # (S,) int64, samples spoken
    tail: Tensor  # (S, 8) the last samples, which fade into the next letter


@dataclass
class ToneMemo:
    """
    held:    a word, its position, that waits for the next one.
    letters: to be spoken: letter, position in the text, and the letter that follows.
    spoken:  letter, position, and the sample at which it ended, the newest last.
    samples: spoken.
    """

    pitch: float
    fail_on: str
    held: tuple[str, int] | None = None
    letters: tuple[tuple[str, int, str], ...] = ()
    spoken: tuple[tuple[str, int, int], ...] = ()
    samples: int = 0
    restart: bool = False
    ended: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Tones:
    takes, gives = Port("text"), Port("audio", RATE)
    fingerprint = "tones"
    Options = ToneOptions

    def initial_state(self, slots: int) -> Phase:
        return Phase(torch.zeros(slots, dtype=torch.long), torch.zeros(slots, 8))

    def start(self, options: ToneOptions) -> ToneMemo:
        return ToneMemo(options.pitch, options.fail_on)

    def configure(self, memo: ToneMemo, options: ToneOptions) -> None:
        memo.pitch = options.pitch

    def restore(self, values: dict[str, Any]) -> ToneMemo:
        memo = parse_options(ToneMemo, values)
        letters = [letter for letter, *_ in (*memo.letters, *memo.spoken)]
        positions = (
            [at for _, at, _ in (*memo.letters, *memo.spoken)] + [end for *_, end in memo.spoken] + [memo.samples]
        )
        if not all(len(letter) == 1 for letter in letters) or not all(0 <= at < 2**44 for at in positions):
            raise ValueError("what was or will be said are single letters at positions in the text")
        return memo

    def wants(self, memo: ToneMemo) -> int:
        return 0 if memo.letters else 1

    def launch(self, inputs: Sequence[WordChunk], state: Phase, rows: Tensor, memos: list[ToneMemo]) -> Any:
        for chunk, memo in zip(inputs, memos, strict=True):
            self._take(chunk, memo)
        restart = staged([memo.restart for memo in memos], "cpu", bool)
        spoken = staged([memo.samples for memo in memos], "cpu")
        state.position[rows] = torch.where(restart, spoken, state.position[rows])
        state.tail[rows] = state.tail[rows].masked_fill(restart[:, None], 0)
        for memo in memos:
            memo.restart = False
        here = [memo.letters[0] if memo.letters else ("", 0, "") for memo in memos]
        speaking = staged([bool(letter) for letter, *_ in here], "cpu", bool)
        pitch = staged([memo.pitch for memo in memos], "cpu", float)
        first, second = (
            staged([ord(letter or "a") - 97 for letter in letters], "cpu", float)
            for letters in ([one[0] for one in here], [one[2] or one[0] for one in here])
        )
        glide = torch.linspace(0, 1, LETTER, dtype=torch.float64)
        note = first[:, None] + (second - first)[:, None] * glide
        time = (state.position[rows][:, None] + torch.arange(LETTER)) / RATE
        tone = torch.sin(2 * torch.pi * pitch[:, None] * 2 ** (note / 12) * time).float() / 2
        tone[:, :8] += state.tail[rows]
        state.tail[rows] = torch.where(speaking[:, None], tone[:, -8:] / 2, state.tail[rows])
        state.position[rows] += speaking * LETTER
        return tone, memos

    def read(self, pending: Any) -> list[Turn]:
        tone, memos = pending
        turns = []
        for samples, memo in zip(tone, memos, strict=True):
            events: list[Event] = []
            if memo.letters:
                (letter, at, _), *letters = memo.letters
                memo.letters = tuple(letters)
                if letter == memo.fail_on:
                    turns.append(Turn([], True, RuntimeError(f"cannot say {letter}")))
                    continue
                start, memo.samples = memo.samples / RATE, memo.samples + LETTER
                memo.spoken = (*memo.spoken[-99:], (letter, at, memo.samples))
                events.append(
                    Speech(
                        samples=samples.numpy().copy(),
                        sample_rate=RATE,
                        text=letter,
                        span=(at, at + 1),
                        start=start,
                        end=memo.samples / RATE,
                    )
                )
            turns.append(Turn(events, memo.ended and not memo.letters))
        return turns

    def interrupt(self, memo: ToneMemo, played_s: float | None = None) -> list[Event]:
        played = memo.samples if played_s is None else round(played_s * RATE)
        heard = [entry for entry in memo.spoken if entry[2] <= played]
        begin = heard[0][1] if heard else 0
        memo.held, memo.letters, memo.spoken, memo.samples, memo.restart = None, (), (), played, True
        text = "".join(letter for letter, *_ in heard)
        return [Interrupted(text=text, span=(begin, heard[-1][1] + 1 if heard else begin), heard=played / RATE)]

    def end(self, memo: ToneMemo) -> None:
        pass

    def _take(self, chunk: WordChunk, memo: ToneMemo) -> None:
        begin = chunk.begin
        for word in chunk.words:
            self._say(memo, word.text.strip().lower()[:1])
            memo.held = (word.text, begin)
            begin += len(word.text)
        if chunk.flush or chunk.last:
            self._say(memo, "")
        memo.ended |= chunk.last

    def _say(self, memo: ToneMemo, following: str) -> None:
        if memo.held is None:
            return
        (text, begin), memo.held = memo.held, None
        places = [(letter.lower(), begin + i) for i, letter in enumerate(text) if letter.isascii() and letter.isalpha()]
        following = following if following.isascii() and following.isalpha() else ""
        after = [letter for letter, _ in places[1:]] + [following]
        memo.letters += tuple((letter, at, more) for (letter, at), more in zip(places, after, strict=False))
