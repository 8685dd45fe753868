"""What a stream comes to in the metrics, and in the log once it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

from loquent.speech.net.metrics import Metrics
from loquent.speech.net.models import Model
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.stream import Stream

log = logging.getLogger(__name__)


class Account:
    """Of one connection, from the stream's beginning to its end. Neither audio nor text gets into it.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics, self._clock = metrics, clock
        self._model: Model | None = None
        self._key, self._opened, self._reason = "", 0.0, ""
        self._worst_s = self._first_s = 0.0
        self._resumed = False

    def opened(self, model: Model, key: str, resumed: bool = False) -> None:
        """A stream is open, or goes on."""
        self._model, self._key, self._opened, self._resumed = model, key, self._clock(), resumed
        if resumed:
            self._metrics.resumed.labels(model.task, model.name).inc()
        else:
            self._metrics.sessions.labels(model.name).inc()
            self._metrics.key_sessions.labels(key).inc()

    def result(self, lag_s: float, first_s: float | None) -> None:
        """There are events.

        Args:
            lag_s: since the arrival of the input that made them possible.
            first_s: since that of the first input, if they are the stream's first.
        """
        assert self._model is not None, "a stream is open"
        self._worst_s = max(self._worst_s, lag_s)
        self._metrics.lag_seconds.labels(self._model.task, self._model.name).observe(lag_s)
        if first_s is not None:
            self._first_s = first_s
            self._metrics.first_result_seconds.labels(self._model.task, self._model.name).observe(first_s)

    def ended(self, reason: str) -> None:
        """Why it ended; the first reason counts."""
        self._reason = self._reason or reason

    def close(self, stream: Stream | None, position: int = 0) -> None:
        """Write the line.

        Args:
            position: of the input that a connection before this one has brought.
        """
        if self._model is None or stream is None:
            return
        inbox = stream.inbox
        heard = isinstance(inbox, SampleInbox)
        amount = (inbox.received - position) / (inbox.sample_rate if isinstance(inbox, SampleInbox) else 1)
        if heard:
            self._metrics.key_seconds.labels(self._key).inc(max(amount, 0.0))
        fields = {
            "stream": stream.stream,
            "key": self._key,
            "model": self._model.name,
            "task": self._model.task,
            "audio_s" if heard else "characters": round(amount, 3),
            "seconds": round(self._clock() - self._opened, 3),
            "first_result_s": round(self._first_s, 3),
            "worst_lag_s": round(self._worst_s, 3),
            "resumed": self._resumed,
            "ended": self._reason,
        }
        log.info("stream over", extra={"fields": fields})
