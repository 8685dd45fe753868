"""Training sequences of the text-to-speech-token model: text first, or text and speech in turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from loquent.tts.lm.layout import SpeechLayout
from loquent.tts.lm.model import IGNORED


class Sample(NamedTuple):
    """A sequence: ids of its steps, and the row that is to be predicted from each, or -1."""

    ids: list[int]
    targets: list[int]


def whole_text(layout: SpeechLayout, text: Sequence[int], speech: Sequence[int], prefix: Sequence[int] = ()) -> Sample:
    """[start] [prefix] [text] [task] [speech]; speech is predicted, then its end.

    Args:
        text: text tokens. speech: codes. prefix: text tokens that are no text to be spoken, as CosyVoice 3's.
    """
    ids = [layout.start, *prefix, *text, layout.task, *layout.speech(speech)]
    return Sample(ids, [IGNORED] * (1 + len(prefix) + len(text)) + [*speech, layout.eos])


def in_turns(layout: SpeechLayout, text: Sequence[int], speech: Sequence[int], prefix: Sequence[int] = ()) -> Sample:
    """[start] [prefix] ([a block of text] [a block of speech])… [the rest of the text] [task] [the rest of the speech].

    The end of each whole block of speech predicts the mark `fill`, which no step of the sequence is.

    Raises:
        ValueError: there is too little speech for the blocks of text.
    """
    if not may_take_turns(layout, text, speech):
        raise ValueError(
            f"{len(speech)} speech tokens are too few to take turns with {len(text)} text tokens, "
            f"{layout.speech_block} with {layout.text_block}"
        )
    ids, targets = [layout.start, *prefix], [IGNORED] * (1 + len(prefix))
    blocks = len(text) // layout.text_block
    for block in range(blocks):
        some = text[block * layout.text_block : (block + 1) * layout.text_block]
        spoken = speech[block * layout.speech_block : (block + 1) * layout.speech_block]
        ids += [*some, *layout.speech(spoken)]
        targets += [IGNORED] * (len(some) - 1) + [*spoken, layout.fill]
    rest, unspoken = text[blocks * layout.text_block :], speech[blocks * layout.speech_block :]
    ids += [*rest, layout.task, *layout.speech(unspoken)]
    targets += [IGNORED] * len(rest) + [*unspoken, layout.eos]
    return Sample(ids, targets)


def may_take_turns(layout: SpeechLayout, text: Sequence[int], speech: Sequence[int]) -> bool:
    """Whether there is more speech than the whole blocks of text need."""
    return len(speech) * layout.text_block > len(text) * layout.speech_block


def pad(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Ids and targets (B, T) int64 of a batch, for `SpeechLanguageModel.loss`."""
    ids = [torch.tensor(sample.ids) for sample in samples]
    targets = [torch.tensor(sample.targets) for sample in samples]
    pad_sequence = torch.nn.utils.rnn.pad_sequence
    return pad_sequence(ids, batch_first=True), pad_sequence(targets, batch_first=True, padding_value=IGNORED)


def training_batch(
    layout: SpeechLayout,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    share: float = 0.5,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Ids and targets of (text, speech) pairs, a ``share`` of which takes turns where there is speech enough."""
    turns = (torch.rand(len(pairs), generator=generator) < share).tolist()
    return pad(
        [
            (in_turns if turn and may_take_turns(layout, text, speech) else whole_text)(layout, text, speech)
            for (text, speech), turn in zip(pairs, turns, strict=True)
        ]
    )
