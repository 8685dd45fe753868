"""Resamplers that many streams share: each table of taps is made once, and all of them fit into a bound."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict

from loquent.speech.audio.resample import Resampler

MOST_BYTES = 64 * 2**20  # sixteen tables of the largest size


class TooManyTables(RuntimeError):
    """The tables of the rates in use leave no room for one more; use a customary rate, or try again later."""


class Resamplers:
    """Resamplers by their two rates, made when first asked for and kept while there is room.

    Tables that no stream uses make room, the least recently used first. All methods may be called from any thread; one
    table is made at a time.

    Args:
        most_bytes: of all tables, those in use and those kept, in bytes.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.made = 0  # tables ever computed
        self._kept: OrderedDict[tuple[int, int], Resampler] = OrderedDict()
        self._alive: weakref.WeakValueDictionary[tuple[int, int], Resampler] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all tables in memory."""
        return sum(resampler.taps.nbytes for resampler in list(self._alive.values()))

    def get(self, orig_rate: int, new_rate: int) -> Resampler:
        """The resampler between two rates, in Hz.

        Raises:
            ValueError: a rate is outside 4000 … 192000 Hz, or their ratio needs too large a table.
            TooManyTables: there is no room for its table now.
        """
        key = (orig_rate, new_rate)
        with self._lock:
            resampler = self._alive.get(key)
            if resampler is None:
                self._make_room(4 * Resampler.table_taps(orig_rate, new_rate))
                resampler = self._alive[key] = Resampler(orig_rate, new_rate)
                self.made += 1
            self._kept[key] = resampler
            self._kept.move_to_end(key)
            return resampler

    def _make_room(self, nbytes: int) -> None:
        while self.nbytes + nbytes > self.most_bytes and self._kept:
            self._kept.popitem(last=False)
        if self.nbytes + nbytes > self.most_bytes:
            raise TooManyTables(
                f"streams of unusual sample rates use {self.nbytes} bytes of filter tables, at most {self.most_bytes} "
                "may be; resample to a customary rate such as 48000 or 16000 Hz first, or try again later"
            )
