"""The batches of a corpus on a Ray cluster: actors that load the model once, fed by Ray Data."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loquent.speech.corpus.items import Item
from loquent.speech.corpus.journal import Record
from loquent.speech.corpus.manifest import CorpusError
from loquent.speech.corpus.workers import Job

MOST_BLOCKS = 10_000  # of a data set; with more batches, some share a block


@dataclass(frozen=True)
class OnRay:
    """Has batches done by actors on a cluster.

    address: of the cluster; None: the one of this machine that was started with `ray start`, else one for this run.
    workers: actors; None: as many as there is room for.
    """

    address: str | None = None
    workers: int | None = None

    def __call__(self, job: Job, batches: Sequence[Sequence[Item]], settings: str) -> Iterator[list[Record]]:
        """The records of batches, as they are done.

        Raises:
            CorpusError: there is no such cluster, or the actors failed.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody who transcribes has asked to report on it
        import ray
        import ray.data
        import ray.exceptions

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it shows stacks of what we tell in a line

        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise CorpusError(f"cannot use the Ray cluster {self.address or 'of this machine'}: {error}") from error
        try:
            yield from self._records(job, batches, settings)
        except ray.exceptions.RayError as error:
            raise CorpusError(f"the work on Ray ended: {_cause(error)}") from error
        finally:
            if ours:
                ray.shutdown()

    def _records(self, job: Job, batches: Sequence[Sequence[Item]], settings: str) -> Iterator[list[Record]]:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # there is one already
        needs = _resources(job)
        there = ray.cluster_resources()
        room = min(int(there.get(name, 0) // amount) for name, amount in needs.items())
        workers = min(self.workers or max(room, 1), len(batches))
        rows = [{"items": json.dumps([asdict(item) for item in batch])} for batch in batches]
        records = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map_batches(
            Actor,
            fn_constructor_args=(job, settings),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=needs["CPU"],
            num_gpus=needs.get("GPU", 0),
        )
        tables: Iterable[Any] = records.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        for table in tables:
            for text in table["records"].to_pylist():
                yield json.loads(text)


class Actor:
    """A worker in a process of its own."""

    def __init__(self, job: Job, settings: str) -> None:
        self._worker, self._settings = job.worker(), settings

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """The records of the batches in ``batch["items"]``, as JSON."""
        return {"records": [json.dumps(self._done(text)) for text in batch["items"]]}

    def _done(self, text: str) -> list[Record]:
        items = [Item(**values) for values in json.loads(text)]
        return [*self._worker.records(items, self._settings)]


def _resources(job: Job) -> dict[str, float]:
    """What an actor needs of its machine."""
    import ray

    needs = {"CPU": float(job.threads or 1)}
    if job.device.startswith("cuda") or (job.device == "auto" and ray.cluster_resources().get("GPU")):
        needs["GPU"] = 1.0
    return needs


def _cause(error: BaseException) -> str:
    """The first line that says what went wrong."""
    lines = [line for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
