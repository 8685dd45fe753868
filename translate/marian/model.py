"""Marian's models as models of the translation task: the whole prefix is encoded again for every draft."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from loquent.speech.nn.streaming import Chunk
from loquent.translate.marian.checkpoint import Checkpoint, is_marian, read_checkpoint
from loquent.translate.marian.network import START
from loquent.translate.marian.state import MOST_SOURCE, MarianState
from loquent.translate.model import Draft, Search
from loquent.translate.search.beam import beam_search
from loquent.translate.search.greedy import greedy_search
from loquent.translate.search.stepper import Scores


class MarianTranslator:
    """A `TranslationModel` whose encoder sees the whole source.

    A source that has not ended is encoded like a whole sentence, as the model knows nothing else; so drafts for it go
    further than they should, and a policy that waits until two drafts agree suits them. The decoder is given what is
    committed in one pass. The unknown piece is never written.

    Args:
        checkpoint: network and vocabularies.

    Raises:
        ValueError: the model writes several languages, and the target is none of them.
    """

    most_source = MOST_SOURCE
    default_policy = "local-agreement"
    waits = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.network = checkpoint.network
        self.codec, self.target_codec = checkpoint.source, checkpoint.target
        self.source, self.target = checkpoint.languages
        self.tag = _tag(checkpoint)
        self.fingerprint = _fingerprint(checkpoint)
        output = self.network.output_bias
        silent = torch.tensor(self.target_codec.silent, device=output.device)
        # The network may have more pieces than the vocabulary tells of.
        self.never = torch.full_like(output, -torch.inf)
        self.never[: len(silent)].masked_fill_(~silent, 0)
        self.inner = torch.zeros_like(output, dtype=torch.bool)
        self.inner[: len(silent)] = torch.tensor(self.target_codec.inner, device=output.device)

    @staticmethod
    def owns(path: Path) -> bool:
        """Whether a folder, or a file, is such a model."""
        return is_marian(path)

    @classmethod
    def load(
        cls, path: Path, device: torch.device, source: str | None = None, target: str | None = None
    ) -> MarianTranslator:
        """Read a model; arguments and errors are those of `read_checkpoint`."""
        checkpoint = read_checkpoint(path, source, target)
        checkpoint.network.to(device)
        return cls(checkpoint)

    def initial_state(self, slots: int) -> MarianState:
        """See `TranslationModel.initial_state`."""
        config = self.network.config
        vocabularies = config.source_vocabulary, config.target_vocabulary
        return MarianState.of(slots, vocabularies, self.network.output.device)

    def read(self, pieces: Sequence[Sequence[int]], ends: Sequence[bool], state: MarianState, rows: Tensor) -> None:
        """See `TranslationModel.read`."""
        state.append(pieces, rows)

    @torch.no_grad()
    def draft(self, searches: Sequence[Search], state: MarianState, rows: Tensor) -> list[Draft]:
        """See `TranslationModel.draft`."""
        drafts = [Draft()] * len(searches)
        for beam in {search.beam for search in searches}:
            chosen = [at for at, search in enumerate(searches) if search.beam == beam]
            some = [searches[at] for at in chosen]
            stepper = _Stepper(self, some, state, rows[torch.tensor(chosen, device=rows.device)])
            found = greedy_search(stepper, some) if beam == 1 else beam_search(stepper, some, beam)
            for at, draft in zip(chosen, found, strict=True):
                drafts[at] = draft
        return drafts

    def commit(self, drafts: Sequence[Draft], counts: Sequence[int], state: MarianState, rows: Tensor) -> None:
        """See `TranslationModel.commit`."""
        for draft, count, slot in zip(drafts, counts, rows.tolist(), strict=True):
            if count:
                pieces, attended = state.written_by(slot)
                state.write(slot, pieces + draft.pieces[:count], attended + draft.attended[:count])

    def forget(self, counts: Sequence[int], state: MarianState, rows: Tensor) -> None:
        """See `TranslationModel.forget`; the first words written, if all they attend to is forgotten, go with it."""
        for count, slot in zip(counts, rows.tolist(), strict=True):
            state.drop_source(slot, count)
            gone = int(state.read[slot] - state.held[slot])
            pieces, attended = state.written_by(slot)
            first = next((at for at, number in enumerate(attended) if number >= gone), len(pieces))
            while 0 < first < len(pieces) and not self.target_codec.begins_word[pieces[first]]:
                first -= 1
            state.write(slot, pieces[first:], attended[first:])


class _Stepper:
    """Hypotheses of some streams; see `loquent.translate.search.stepper`."""

    def __init__(self, model: MarianTranslator, searches: Sequence[Search], state: MarianState, rows: Tensor) -> None:
        self.network, self.never, self.lead = model.network, model.never, 0 if model.tag is None else 1
        self.end, self.begins_word = model.target_codec.end, model.target_codec.begins_word
        self.inner = model.inner
        self.read = state.read[rows].tolist()
        self.gone, self.held, self.written = state.read[rows] - state.held[rows], state.held[rows], state.written[rows]
        self.keys = self.network.encode(self._source(model, state, rows), self.held + self.lead + 1)
        self.rows = torch.arange(len(rows), device=rows.device)
        start = self.network.config.start
        first = torch.full_like(rows, START if start is None else start)[:, None]
        given = torch.cat([first, state.target[rows, : max(self.written.tolist(), default=0)]], dim=1)
        self.first = given.gather(1, self.written[:, None])[:, 0]
        most = max(
            (search.most_pieces + sum(len(term.pieces) for term in search.terms) for search in searches), default=0
        )
        self.past = self.network.past(len(rows), given.shape[1] + most + 1)
        if given.shape[1] > 1:
            self._decode(given[:, :-1], self.written, torch.zeros_like(self.written))

    def step(self, pieces: Tensor) -> Scores:
        """See `Stepper.step`."""
        hidden, weights = self._decode(pieces[:, None], torch.ones_like(pieces), self.written)
        self.written = self.written + 1
        logits = self.network.logits(hidden[:, 0]) + self.never
        weights = weights[:, 0, self.lead :]
        real = torch.arange(weights.shape[1], device=weights.device) < self.held[:, None]
        return Scores(logits, weights.masked_fill(~real, -1).argmax(1) + self.gone)

    def select(self, index: Tensor) -> None:
        """See `Stepper.select`."""
        self.past = tuple(layer.gather(index) for layer in self.past)
        self.rows, self.gone, self.held, self.written = (
            one[index] for one in (self.rows, self.gone, self.held, self.written)
        )

    def _source(self, model: MarianTranslator, state: MarianState, rows: Tensor) -> Tensor:
        """(B, S) int64: the tag of the target language if there is one, the pieces, the end."""
        most = max(self.held.tolist(), default=0)
        pieces = torch.cat([state.source[rows, :most], rows.new_zeros(len(rows), 1)], dim=1)
        pieces = pieces.scatter(1, self.held[:, None], model.codec.end)
        return pieces if model.tag is None else torch.cat([torch.full_like(pieces[:, :1], model.tag), pieces], dim=1)

    def _decode(self, pieces: Tensor, length: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        chunk = Chunk(pieces, length, length < 0)
        return self.network.decode(chunk, self.past, written, self.keys, self.rows, self.held + self.lead + 1)


def _tag(checkpoint: Checkpoint) -> int | None:
    """The piece that asks for the target language, of a model that writes several."""
    tags, target = checkpoint.source.tags, checkpoint.languages[1]
    if target in tags or len(tags) < 2:
        return tags.get(target)
    raise ValueError(
        f"the model writes several languages, but not {target!r}: give target= one of {', '.join(sorted(tags))}"
    )


def _fingerprint(checkpoint: Checkpoint) -> str:
    network, languages = checkpoint.network, checkpoint.languages
    digest = hashlib.sha256(repr((network.config, languages)).encode())
    digest.update(checkpoint.source.content + checkpoint.target.content)
    for weight in network.parameters():
        digest.update(weight.float().cpu().contiguous().numpy().data)
    return digest.hexdigest()
