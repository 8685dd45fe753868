"""What a model that translates piece by piece writes, as data for one that writes all at once.

Translations of people differ where the source does not say why; a model that writes every piece without seeing the
others mixes them up. Those of a model agree with each other (sequence-level distillation, Kim and Rush 2016, arXiv
1606.07947).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from loquent.translate.loops import before_loop
from loquent.translate.model import Search
from loquent.translate.sentences import CLOSING, MARKS, ends_sentence
from loquent.translate.seq2seq.model import Seq2SeqTranslator

AT_ONCE = 64  # sentences
LONGEST = 3, 16  # pieces of a translation for each of the source, and more


class Distilled(NamedTuple):
    """A source and the translation that the teacher gives it; ``whole`` is False of the beginning of a sentence."""

    source: str
    target: str
    whole: bool


def sources_of(sentences: Sequence[str], prefixes: float, seed: int) -> list[tuple[str, bool]]:
    """What is to be translated, with whether it is whole: sentences, and beginnings of some instead. Short ones first.

    Args:
        prefixes: the share of beginnings.
    """
    rng = random.Random(seed)
    sources = []
    for sentence in sentences:
        words = sentence.split()
        if len(words) > 1 and rng.random() < prefixes:
            words = words[: rng.randrange(1, len(words))]
        beginning = " ".join(words)
        sources.append((beginning, beginning == sentence))
    return sorted(dict.fromkeys(sources), key=lambda source: (len(source[0].split()), source))


def distil(teacher: Seq2SeqTranslator, sources: Sequence[tuple[str, bool]], file: Path) -> list[Distilled]:
    """Translate, greedily, what is not in the file yet; a run that was stopped goes on where it was.

    Args:
        sources: see `sources_of`.
        file: a line for each source: source, translation, and whether it is whole, with tabs between.
    """
    known = {(one.source, one.whole): one for one in _read(file)}
    missing = [source for source in sources if source not in known]
    file.parent.mkdir(parents=True, exist_ok=True)
    state, rows = teacher.initial_state(AT_ONCE), torch.arange(AT_ONCE, device=teacher.never.device)
    with (
        file.open("a", encoding="utf-8") as stream,
        tqdm(total=len(missing), desc="distilling", unit="sentence", file=sys.stderr, disable=not missing) as progress,
    ):
        for at in range(0, len(missing), AT_ONCE):
            some = missing[at : at + AT_ONCE]
            read = [teacher.codec.encode(source) for source, _ in some]
            teacher.read(read, [True] * len(some), state, rows[: len(some)])
            searches = [Search(ended=True, most_pieces=LONGEST[0] * len(pieces) + LONGEST[1]) for pieces in read]
            drafts = teacher.draft(searches, state, rows[: len(some)])
            state.reset(rows[: len(some)])
            for (source, whole), draft in zip(some, drafts, strict=True):
                target = teacher.target_codec.decode(draft.pieces[: before_loop(draft.pieces)])
                one = Distilled(source, " ".join((target if whole else unfinished(source, target)).split()), whole)
                stream.write(f"{one.source}\t{one.target}\t{int(one.whole)}\n")
                known[source, whole] = one
            stream.flush()
            progress.update(len(some))
    return [known[source] for source in sources]


def unfinished(source: str, target: str) -> str:
    """The translation of the beginning of a sentence without the full stop that the source does not have."""
    return target if ends_sentence(source) else target.rstrip(CLOSING).rstrip("".join(MARKS))


def _read(file: Path) -> list[Distilled]:
    """What is in a file, of which a last line that was cut off is removed."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    whole, _, rest = text.rpartition("\n")
    if rest:
        file.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    columns = [line.split("\t") for line in whole.split("\n") if line]
    return [Distilled(source, target, whole == "1") for source, target, whole in columns]
