"""What a text-to-speech-token model calls text, speech and the marks between them: CosyVoice 2's way and 3's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class SpeechLayout:
    """Numbers of what a sequence is made of. A step of a sequence has one id, whatever it is::

        0 … text - 1                    text tokens
        text … text + rows - 1          rows of the speech embedding: speech codes and marks
        text + rows, text + rows + 1    start and task, where these have an embedding of their own

    What the model predicts is a row.

    text:   size of the vocabulary of text.
    codes:  of speech: rows 0 … codes - 1.
    rows:   of the speech embedding, and of what is predicted.
    eos, fill: rows that say that speech ends, and that it goes on with the next block of text.
    marks:  rows of start and task; None where they have an embedding of their own.
    text_block, speech_block: tokens that take turns when text is streamed.
    end_of_prompt: text token behind which the text to be spoken begins; None where there is none.
    """

    text: int
    codes: int
    rows: int
    eos: int
    fill: int
    marks: tuple[int, int] | None
    text_block: int = 5
    speech_block: int = 15
    end_of_prompt: int | None = None

    @classmethod
    def cosyvoice2(cls, text: int, codes: int = 6561, blocks: tuple[int, int] = (5, 15)) -> SpeechLayout:
        """Of CosyVoice 2 (arXiv 2412.10117): marks of their own, three rows more than codes."""
        return cls(text, codes, codes + 3, codes, codes + 2, None, *blocks)

    @classmethod
    def cosyvoice3(
        cls, text: int, codes: int = 6561, blocks: tuple[int, int] = (5, 15), end_of_prompt: int = 151_646
    ) -> SpeechLayout:
        """Of CosyVoice 3 (arXiv 2505.17589): 200 rows more than codes, a prompt told apart from the text."""
        return cls(text, codes, codes + 200, codes + 1, codes + 3, (codes, codes + 2), *blocks, end_of_prompt)

    @property
    def start(self) -> int:
        """Id of the first step of every sequence."""
        return self.text + (self.rows if self.marks is None else self.marks[0])

    @property
    def task(self) -> int:
        """Id of the step behind the last text."""
        return self.text + (self.rows + 1 if self.marks is None else self.marks[1])

    def speech(self, codes: Iterable[int]) -> list[int]:
        """Ids of speech codes."""
        return [self.text + code for code in codes]

    def check_text(self, tokens: Iterable[int]) -> list[int]:
        """Ids of text tokens, which they are.

        Raises:
            ValueError: one is out of range.
        """
        return _checked("text token", tokens, self.text)

    def check_speech(self, codes: Iterable[int]) -> list[int]:
        """Speech codes, unchanged.

        Raises:
            ValueError: one is out of range.
        """
        return _checked("speech code", codes, self.codes)


def _checked(what: str, numbers: Iterable[int], count: int) -> list[int]:
    found = [int(number) for number in numbers]
    for number in found:
        if not 0 <= number < count:
            raise ValueError(f"{what} {number} is outside 0 … {count - 1}: was it made for another model?")
    return found
