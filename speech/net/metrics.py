"""What a server tells Prometheus about itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_LAG_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server, in a registry of their own: several servers may share a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.active = Gauge("loquent_sessions_active", "Streams that hold a slot.", registry=self.registry)
        self.sessions = Counter("loquent_sessions", "Streams opened.", ["model"], registry=self.registry)
        self.step_seconds = Histogram(
            "loquent_step_seconds", "Time of one batched model step.", buckets=_STEP_BUCKETS, registry=self.registry
        )
        self.batch_size = Histogram(
            "loquent_batch_size", "Streams in a step.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=self.registry
        )
        self.first_result_seconds = Histogram(
            "loquent_first_result_seconds",
            "Time from a stream's first audio to its first event.",
            ["task", "model"],
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self.lag_seconds = Histogram(
            "loquent_lag_seconds",
            "Time from the arrival of the last audio an event needed to the event.",
            ["task", "model"],
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self.queue_depth = Gauge("loquent_queue_depth", "Streams that wait for a step.", registry=self.registry)
        self.queue_seconds = Gauge(
            "loquent_queue_audio_seconds", "Audio received and not yet processed.", registry=self.registry
        )
        self.dropped = Counter(
            "loquent_partials_dropped", "Superseded partial results not sent to slow readers.", registry=self.registry
        )
        self.failures = Counter(
            "loquent_failures", "Streams refused or ended by a failure.", ["code"], registry=self.registry
        )
        self.refusals = Counter(
            "loquent_refusals",
            "Streams, uploads and connections refused or cut, by what there was too little of.",
            ["reason", "task", "model"],
            registry=self.registry,
        )
        self.connections = Gauge("loquent_connections", "Connections that are open.", registry=self.registry)
        self.load = Gauge(
            "loquent_load",
            "Share of its time that the machine needs to keep up with the streams there are, as its steps measure it.",
            registry=self.registry,
        )
        self.capacity = Gauge(
            "loquent_capacity_streams",
            "Streams that would fit, as measured, beside those of other models.",
            ["model"],
            registry=self.registry,
        )

        self.streams = Gauge(
            "loquent_streams", "Streams that a model's engines have.", ["task", "model"], registry=self.registry
        )
        self.uploads = Counter(
            "loquent_uploads", "Files sent to be transcribed.", ["task", "model"], registry=self.registry
        )
        self.resumed = Counter(
            "loquent_sessions_resumed", "Streams resumed by their clients.", ["task", "model"], registry=self.registry
        )
        self.kept = Gauge(
            "loquent_sessions_kept", "Streams that wait in memory for their clients.", registry=self.registry
        )
        self.key_sessions = Counter(
            "loquent_key_sessions", "Streams opened over websockets, by key.", ["key"], registry=self.registry
        )
        self.key_seconds = Counter(
            "loquent_key_audio_seconds", "Audio received over websockets, by key.", ["key"], registry=self.registry
        )

    def refused(self, reason: str, task: str = "", model: str = "") -> None:
        """Count a stream, an upload or a connection that was refused."""
        self.refusals.labels(reason, task, model).inc()

    def observe_step(self, engine: object, streams: int, seconds: float) -> None:
        """Take up one batched step of an engine."""
        self.step_seconds.observe(seconds)
        self.batch_size.observe(streams)

    def render(self) -> bytes:
        """Text exposition format."""
        return generate_latest(self.registry)
