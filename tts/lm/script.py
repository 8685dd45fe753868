"""In which order a stream's text and speech go through the language model, whenever the text comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from loquent.tts.lm.layout import SpeechLayout


@dataclass
class Script:
    """One utterance on its way through the model; plain values only, so that it can be copied and saved.

    In turns, a block of text is given as soon as it is there, then a block of speech is drawn; when the text ends, its
    rest and the task are given, and speech is drawn until its end. Otherwise all text is given at once. The order is
    that of the training sequences (`sequences.py`), so what is drawn does not depend on when text comes.

    A voice's prompt is the beginning of both: its text precedes the text, its speech is taken for drawn.

    Attributes:
        least, most: speech tokens for each token of the text, not of the prompt. ``least`` holds for text that comes
                 whole, as in CosyVoice; ``most`` ends an utterance that does not end by itself.
        due:     ids that the model has not taken yet.
        text:    tokens that wait for a whole block. prompt: codes of the prompt's speech that wait for their text.
        in_turns: whether text and speech take turns.
        prefixed: whether the prompt's end has been found, where the layout has one.
        room:    speech tokens until the block is full.
        ended, closing, done: whether all text has come, is given, and speech has ended.
        given:   text tokens to be spoken. drawn: draws so far, marks too. spoken: speech tokens so far.
        recent:  the last draws.
    """

    layout: SpeechLayout
    in_turns: bool
    due: list[int]
    text: list[int]
    prompt: list[int]
    prefixed: bool
    seed: int = 0
    least: float = 2.0
    most: float = 20.0
    room: int = 0
    ended: bool = False
    closing: bool = False
    done: bool = False
    given: int = 0
    drawn: int = 0
    spoken: int = 0
    recent: list[int] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        layout: SpeechLayout,
        prompt_text: Iterable[int] = (),
        prompt_speech: Iterable[int] = (),
        *,
        in_turns: bool,
        seed: int = 0,
        least: float = 2.0,
        most: float = 20.0,
    ) -> Script:
        """An utterance with the prompt of a voice.

        Raises:
            ValueError: a token is out of range.
        """
        text, prompt = layout.check_text(prompt_text), layout.check_speech(prompt_speech)
        return cls(layout, in_turns, [layout.start], text, prompt, layout.end_of_prompt is None, seed, least, most)

    def push(self, tokens: Iterable[int]) -> None:
        """More text.

        Raises:
            ValueError: a token is out of range, or the text has ended.
        """
        if self.ended:
            raise ValueError("the text has ended; begin another utterance")
        some = self.layout.check_text(tokens)
        self.text += some
        self.given += len(some)

    def finish(self) -> None:
        """No more text.

        Raises:
            ValueError: the end of the prompt is missing.
        """
        self.ended = True
        self._take_prefix()
        if not self.prefixed:
            raise ValueError(
                f"neither the prompt's text nor the text has the token {self.layout.end_of_prompt}, <|endofprompt|>, "
                "behind which the text to be spoken begins"
            )

    def ready(self) -> bool:
        """Whether a token can be drawn once the model has taken what is ``due``."""
        self._take_prefix()
        while self.prefixed and not self.closing:
            if self.room and self.prompt:
                self._take_prompt(self.room)
            elif self.room:
                return True
            elif self.in_turns and len(self.text) >= self.layout.text_block:
                self._take_text(self.layout.text_block)
                self.room = self.layout.speech_block
            elif not self.ended:
                return False
            else:
                self._take_text(len(self.text))
                self.due.append(self.layout.task)
                self._take_prompt(len(self.prompt))
                self.closing = True
                self._end_if_long()
        return self.closing and not self.done

    def allowed(self) -> int | None:
        """The mark that may be drawn besides speech: of the end, or of more text; None when it is too early."""
        if not self.closing:
            return self.layout.fill
        early = not self.in_turns and self.spoken < int(self.least * self.given)
        return None if early else self.layout.eos

    def take(self, row: int, window: int) -> int | None:
        """Go on behind a row that was drawn from what was due: its speech code, or None for a mark.

        Args:
            window: draws that are remembered.
        """
        self.due.clear()
        self._remember(row, window)
        if row >= self.layout.codes:
            self.done, self.room = self.closing, 0
            return None
        self.due.append(self.layout.text + row)
        self.spoken += 1
        if self.closing:
            self._end_if_long()
        else:
            self.room -= 1
            if not self.room:  # the block is full: the mark needs no drawing
                self._remember(self.layout.fill, window)
        return row

    def _end_if_long(self) -> None:
        self.done |= self.spoken >= int(self.most * self.given)

    def _remember(self, row: int, window: int) -> None:
        self.drawn += 1
        self.recent = [*self.recent, row][-window:]

    def _take_prefix(self) -> None:
        """Give the prompt up to its end, in CosyVoice 3 before any turn is taken."""
        if not self.prefixed and self.layout.end_of_prompt in self.text:
            self._take_text(self.text.index(self.layout.end_of_prompt) + 1)
            self.prefixed = True

    def _take_text(self, count: int) -> None:
        self.due += self.text[:count]
        del self.text[:count]

    def _take_prompt(self, count: int) -> None:
        some = self.prompt[:count]
        self.due += self.layout.speech(some)
        del self.prompt[:count]
        if not self.closing:
            self.room -= len(some)
