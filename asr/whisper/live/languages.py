"""The language of streams that do not know theirs, from the first speech that they bring."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loquent.asr.whisper.live.encoding import EncodedAudio
from loquent.asr.whisper.live.memo import WhisperMemo
from loquent.asr.whisper.live.network import Network
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.events import Language
from loquent.speech.runtime.turns import Turns

LANGUAGE_FRAMES = 200  # mel frames since speech was noticed that make the choice of language final


def detect_languages(
    network: Network,
    tokenizer: WhisperTokenizer,
    talking: Sequence[int],
    memos: Sequence[WhisperMemo],
    ending: Sequence[bool],
    encoded: EncodedAudio,
    turns: Turns,
) -> None:
    """Choose the language of streams that have none yet, and tell it once something is committed in it.

    Args:
        talking: places in the batch of the streams that have a window.
        memos: of the whole batch.
        ending: whether the utterance ends, of each of ``talking``; if it does so early, the next one is looked at anew.
        encoded: audio of ``talking``.
        turns: of the whole batch.
    """
    unknown = [n for n, i in enumerate(talking) if memos[i].language is None]
    if not unknown:
        return
    found = network.languages(encoded.select(unknown), tokenizer)
    for n, scores in zip(unknown, found, strict=True):
        memo = memos[talking[n]]
        window = memo.window
        assert window is not None, "it is talking"
        among = memo.languages or list(scores)
        code = max(among, key=scores.__getitem__)
        sequence = tokenizer.sot_sequence(code, memo.options.mode, timestamps=False)
        window.control = [*window.control[: -len(sequence)], *sequence]
        window.primed = False  # what the decoder knows was written under another language
        certain = memo.frames - window.opened >= LANGUAGE_FRAMES
        if certain:
            memo.language = code
        probability = 1 / sum(math.exp(scores[other] - scores[code]) for other in among)
        if (certain or ending[n]) and math.isfinite(probability):
            turns.events[talking[n]].append(Language(language=code, probability=probability))
