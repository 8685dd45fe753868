"""Simultaneous translation of speech into English with Whisper, with or without a transcript of what is said."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from torch import Tensor

from loquent.asr.whisper.live.options import StreamingOptions, WhisperStreamOptions
from loquent.asr.whisper.live.state import StreamState, WhisperStep
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import staged
from loquent.speech.runtime.events import Event, Translation, Word
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.task import Port, Turn, check_fixed
from loquent.translate.whisper.memo import WhisperTranslationMemo
from loquent.translate.whisper.options import WhisperTranslationOptions

Pending = tuple[list[WhisperTranslationMemo], WhisperStep]


class WhisperTranslationTask:
    """A `Task` that translates speech into English (see `loquent.speech.runtime.task`).

    Committed text comes as `Translation` events, word by word; what may still change, as the unstable tail of `Partial`
    events; whole utterances, as `Final` events with their times. The span of a translation is (0, 0): speech has no
    characters to count.

    With ``transcript``, the words that are said come as `Word` events. One model writes both texts, and each step's
    audio is encoded once for both. Partial texts and utterances are those of the translation, which alone goes on to a
    next stage.

    Args:
        model, tokenizer: of a multilingual Whisper.
        settings: how audio is turned into text, the same for all streams. The policy is "local-agreement", or
            "alignatt", which is ahead of it and errs more.

    Raises:
        ValueError: the model knows English only, or cannot translate with that policy.
    """

    takes = Port("audio", 16_000)
    gives = Port("text")
    Options = WhisperTranslationOptions
    overhears: Literal[True] = True

    def __init__(self, model: Whisper, tokenizer: WhisperTokenizer, settings: StreamingOptions | None = None) -> None:
        settings = settings or StreamingOptions()
        if not tokenizer.is_multilingual:
            raise ValueError("model: this one knows English only and translates nothing; expected a multilingual one")
        if settings.policy == "incremental":
            raise ValueError(
                "policy: expected local-agreement or alignatt, got 'incremental', whose adapters write down what is "
                "said and do not translate it"
            )
        self.recognition = WhisperStreamingTask(model, tokenizer, settings)
        self.widths = self.recognition.widths
        self.fingerprint = hashlib.sha256(f"translation by {self.recognition.fingerprint}".encode()).hexdigest()

    def initial_state(self, slots: int) -> StreamState:
        """Pool of ``slots`` streams."""
        return self.recognition.initial_state(slots)

    def start(self, options: WhisperTranslationOptions) -> WhisperTranslationMemo:
        """Begin a stream.

        Raises:
            ValueError: the model does not know the language.
        """
        translation = self.recognition.start(WhisperStreamOptions(options.language, "translate"))
        transcript = self.recognition.start(WhisperStreamOptions(options.language)) if options.transcript else None
        return WhisperTranslationMemo(options, translation, transcript)

    def restore(self, values: dict[str, Any]) -> WhisperTranslationMemo:
        """Inverse of ``WhisperTranslationMemo.to_dict``.

        Raises:
            ValueError: the values are not those of such a stream.
        """
        try:
            options = parse_options(WhisperTranslationOptions, values["options"])
            texts = [values["translation"], *([values["transcript"]] if options.transcript else [])]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the memo of a stream of Whisper's translation: {error}") from error
        memos = [self.recognition.restore(text) for text in texts]
        memo = WhisperTranslationMemo(options, memos[0], memos[1] if options.transcript else None)
        modes = [text.options.mode for text in memo.texts]
        if modes != ["transcribe", "translate"][-len(modes) :] or len({text.frames for text in memo.texts}) > 1:
            self.end(memo)
            raise ValueError("not the memo of a stream of Whisper's translation: its texts do not belong together")
        return memo

    def check_restored(self, memo: WhisperTranslationMemo, state: StreamState) -> None:
        """See `loquent.speech.runtime.task.Restorable`."""
        for text in memo.texts:
            self.recognition.check_restored(text, state)

    def configure(self, memo: WhisperTranslationMemo, options: WhisperTranslationOptions) -> None:
        """Refuse any change: a stream keeps the options that it began with.

        Raises:
            ValueError: an option differs.
        """
        check_fixed(memo.options, options)

    def wants(self, memo: WhisperTranslationMemo) -> int:
        """Samples of the next chunk."""
        return self.recognition.wants(memo.translation)

    def launch(self, inputs: Chunk, state: StreamState, rows: Tensor, memos: list[WhisperTranslationMemo]) -> Pending:
        """Extract the features of every stream's next chunk, and detect speech in it."""
        return memos, self.recognition.launch(inputs, state, rows, [memo.translation for memo in memos])

    def read(self, pending: Pending) -> list[Turn]:
        """Write down what the chunks bring, in as many ways as each stream asks for."""
        memos, step = pending
        place = [i for i, memo in enumerate(memos) for _ in memo.texts]
        texts = [text for memo in memos for text in memo.texts]
        rows = step.rows[staged(place, step.rows.device)]
        turns = iter(self.recognition.read(step._replace(memos=texts, rows=rows, place=place)))
        return [_in_step(memo, [next(turns) for _ in memo.texts]) for memo in memos]

    def interrupt(self, memo: WhisperTranslationMemo, played_s: float | None = None) -> list[Event]:
        """Nothing: text is not spoken."""
        return []

    def end(self, memo: WhisperTranslationMemo) -> None:
        """Nothing more is written about the stream."""
        for text in memo.texts:
            self.recognition.end(text)


def _in_step(memo: WhisperTranslationMemo, turns: list[Turn]) -> Turn:
    """One turn of the turns of a stream's texts, which begin the next utterance together."""
    barrier = max(text.barrier for text in memo.texts)
    for text in memo.texts:
        text.barrier = barrier
    *transcript, translation = turns
    words = [event for turn in transcript for event in turn.events if isinstance(event, Word)]
    english = [
        Translation(text=event.text, span=(0, 0)) if isinstance(event, Word) else event for event in translation.events
    ]
    error = next((turn.error for turn in turns if turn.error is not None), None)
    return Turn([*words, *english], any(turn.done for turn in turns), error)
