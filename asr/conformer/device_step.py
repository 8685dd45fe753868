"""What the device does in a step of a Conformer: features, encoder, greedy search, and one copy of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from loquent.asr.conformer.encoder import ConformerState
from loquent.asr.conformer.memo import ConformerMemo
from loquent.asr.conformer.model import ConformerModel
from loquent.asr.search.ctc import CTCGreedySearch
from loquent.asr.search.tokens import Advance, DeviceSearch, TokenSearch
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import ChainState, Chunk
from loquent.speech.nn.transfer import Fetched, staged
from loquent.speech.runtime.replay import Replay


@dataclass
class ConformerStreamState(State):
    """Pool of streams."""

    features: ChainState
    encoder: Any  # ConformerState or AdaptiveState
    search: Any  # of a search, which has `frames`


class Arrived(NamedTuple):
    """What the host reads of a step; of each stream, but for `scanned`."""

    samples: list[int]
    last: list[bool]  # whether its input ends with this step
    lengths: list[int]  # encoder frames
    finite: list[bool]  # whether they all are
    scanned: Sequence[Tensor]  # what the search found, if the device searched


class ConformerStep(NamedTuple):
    """A step that has been launched; B streams and rows of padding."""

    memos: list[ConformerMemo]
    state: ConformerStreamState
    rows: Tensor  # (B,)
    encoded: Chunk  # (B, T, dim)
    searched: Chunk  # the part of it that the device searched
    size: int  # frames after which endpoints are looked for
    fetched: Fetched

    def arrived(self) -> Arrived:
        """The results, once they are there."""
        tensors = self.fetched.wait()
        samples, last, lengths, finite = (tensor[: len(self.memos)].tolist() for tensor in tensors[:4])
        return Arrived(samples, last, lengths, finite, tensors[4:])


class DeviceStep:
    """Launches steps of a model and a search.

    On a device that replays graphs there is one for each number of rows, width, and look-ahead. Biased streams and
    beams are searched on the host, and so are all streams where shapes are not static.

    Args:
        widths: samples of a step of which there is a graph.
    """

    def __init__(self, model: ConformerModel, search: TokenSearch, widths: Sequence[int]) -> None:
        self.model, self.search, self.widths = model, search, widths
        self._replays: dict[tuple[int, int, bool], Replay] = {}

    def __call__(
        self, samples: Chunk, state: ConformerStreamState, rows: Tensor, memos: list[ConformerMemo]
    ) -> ConformerStep:
        """Launch a step of some streams; nothing waits."""
        size = max(memo.lookahead for memo in memos) + 1
        widest = max(size - 1, *(memo.following for memo in memos))
        unbiased = isinstance(self.search, DeviceSearch) and not any(memo.search.biasing for memo in memos)
        key = (widest, size, bool(samples.static) and unbiased)
        if key not in self._replays:
            self._replays[key] = Replay(partial(self._run, *key))
        run = self._replays[key] if samples.data.shape[1] in self.widths else self._replays[key].function
        chosen = staged(self._choices(memos) + [0] * (len(rows) - len(memos)), rows.device)
        data, length, finite, *scanned = run(samples, state, rows, chosen)
        encoded = samples.with_data(data, length)
        fetched = Fetched(samples.length, samples.last, length, finite, *scanned)
        return ConformerStep(memos, state, rows, encoded, self._searched(encoded, size), size, fetched)

    def found(self, step: ConformerStep, arrived: Arrived) -> list[Advance] | None:
        """What the device's search found in the first frames of each stream: `ConformerStep.searched`."""
        if not arrived.scanned or not isinstance(self.search, DeviceSearch):
            return None
        return self.search.finish(arrived.scanned, step.searched, step.state.search, step.rows, len(step.memos))

    def _choices(self, memos: Sequence[ConformerMemo]) -> list[int]:
        """The look-aheads of the streams' next chunks, by their numbers."""
        lookaheads = self.model.encoder.config.lookaheads
        return [lookaheads.index(memo.lookahead) if memo.lookahead in lookaheads else 0 for memo in memos]

    def _run(
        self,
        widest: int,
        size: int,
        scans: bool,
        samples: Chunk,
        state: ConformerStreamState,
        rows: Tensor,
        chosen: Tensor,
    ) -> tuple[Tensor, ...]:
        """Encoder frames (B, T, dim), how many there are, whether they are finite, and what the search found."""
        model = self.model
        mel = model.features.step(samples, state.features, rows)
        mel = mel.with_data(model.normalize(mel.data))
        if isinstance(state.encoder, ConformerState):
            state.encoder.following[rows] = chosen
            encoded = model.encoder.step(mel, state.encoder, rows, widest=widest)
        else:
            encoded = model.encoder.step(mel, state.encoder, rows)
        finite = encoded.data.masked_fill(~encoded.mask[..., None], 0.0).isfinite().all(2).all(1)
        scanned: tuple[Tensor, ...] = ()
        if scans:
            scanned = self.search.scan(self._searched(encoded, size), state.search, rows)
        return encoded.data, encoded.length, finite, *scanned

    def _searched(self, encoded: Chunk, size: int) -> Chunk:
        """The frames that can be searched before endpoints are looked for: all of them where they change nothing."""
        return encoded if isinstance(self.search, CTCGreedySearch) else frames_of(encoded, 0, size)


def frames_of(encoded: Chunk, begin: int, size: int) -> Chunk:
    """Frames begin … begin + size - 1 of each row; a stream that ends does so with its last part."""
    length = (encoded.length - begin).clamp(0, size)
    last = encoded.last & (encoded.length <= begin + size)
    return encoded.with_data(encoded.data[:, begin : begin + size], length, last)
