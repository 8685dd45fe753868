"""A batch on its way through a step: who is in it, and the samples of its streams in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import staged
from loquent.speech.runtime.session import Session


@dataclass(frozen=True)
class Batch:
    """Sessions that step together, what each takes out of its inbox, and when that was.

    heard_s: source time that the sessions had processed before, in all, in seconds.
    failed:  sessions that had to be ended instead of stepped.
    width:   samples that each row is padded to; None for the longest row.
    """

    sessions: list[Session]
    claims: list[Any]
    begin: float
    heard_s: float
    failed: list[Session]
    width: int | None = None


def bucket(streams: int) -> int:
    """Rows of a batch of static shape: the next power of two."""
    return 1 << (streams - 1).bit_length()


def padded(
    taken: Sequence[tuple[np.ndarray, bool]],
    rows: int,
    width: int | None = None,
    *,
    device: torch.device | str = "cpu",
    static: bool | None = None,
) -> Chunk:
    """Samples of some streams, and whether each ends with them, as a chunk.

    Args:
        rows: of the chunk; those beyond the streams' are empty.
        width: samples of a row; as many as the longest has by default.
    """
    lengths = [len(block) for block, _ in taken] + [0] * (rows - len(taken))
    samples = np.zeros((rows, max(lengths) if width is None else width), np.float32)
    for row, (block, _) in zip(samples, taken, strict=False):
        row[: len(block)] = block
    ends = [last for _, last in taken] + [False] * (rows - len(taken))
    return Chunk(staged(samples, device, np.float32), staged(lengths, device), staged(ends, device, np.bool_), static)
