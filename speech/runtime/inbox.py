"""A stream's input on its way to the model: any packets in, exactly what the next step wants out.

An inbox is used from two threads, never for the same thing at the same time: the one that owns the session pushes and
claims; the one that computes turns a claim into what the model takes. Resampling is part of the latter.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Inbox(Protocol):
    """What a session asks of its inbox.

    received: how far the input has come, in samples at its own rate, or characters.
    ended:    whether nothing follows.
    seconds:  source time that has come in; 0 where text has no times.
    processed: the position up to which it has been handed out, likewise.
    clock:    seconds of source audio that have been handed out.
    pending:  what waits to be handed out, in seconds of audio, or words.
    nbytes:   of what waits.
    """

    received: int
    ended: bool

    @property
    def seconds(self) -> float: ...
    @property
    def processed(self) -> int: ...
    @property
    def clock(self) -> float: ...
    @property
    def pending(self) -> float: ...
    @property
    def nbytes(self) -> int: ...

    def push(self, packet: Any) -> None:
        """Append a packet, in time that does not depend on what waits."""

    def flush(self) -> None:
        """Ask for everything so far to be processed without waiting for more."""

    def end(self) -> None:
        """Say that nothing follows."""

    def discard(self) -> None:
        """Drop the text that waits: whoever spoke it was interrupted. Audio is kept."""

    def available(self, count: int) -> bool:
        """Whether the next step can have ``count`` samples or words, or the end or a flush before them."""

    def claim(self, count: int) -> Any:
        """Take out what the next step needs."""

    def resolve(self, claim: Any) -> Any:
        """Turn a claim into samples (N,) and whether the stream ends with them, or into a `WordChunk`."""

    def passed(self, position: int) -> bool:
        """Whether all input before ``position`` (a value that ``received`` had) has been handed out."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; with `tensors` they are the whole inbox."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What does not go into `to_dict`."""

    def restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Inverse of `to_dict` and `tensors`, on an inbox made with the same arguments."""
