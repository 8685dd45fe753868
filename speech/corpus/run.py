"""Work through a corpus: what is done already, batches of the rest, results on disk as they come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from loquent.speech.corpus.items import Item, packed
from loquent.speech.corpus.journal import Journal, Record
from loquent.speech.corpus.manifest import CorpusError
from loquent.speech.corpus.workers import Job

BATCH_S = 120.0  # of speech that a worker is given at a time, if that is as much as its model takes at once
MOST_ITEMS = 64

# From batches of items and the digest of the settings to records, those of one item or of many at a time.
Execute = Callable[[Job, Sequence[Sequence[Item]], str], Iterator[list[Record]]]


class Progress(NamedTuple):
    """How far the work is: items that are done in this run, out of how many, and their seconds of speech, likewise."""

    items: int
    of: int
    seconds: float
    of_seconds: float


class Outcome(NamedTuple):
    """What there is in the end. before: results that were there already; errors: among all results."""

    items: int
    before: int
    errors: int


def in_this_process(job: Job, batches: Sequence[Sequence[Item]], settings: str) -> Iterator[list[Record]]:
    """One batch after the other, with one worker."""
    worker = job.worker()
    for batch in batches:
        for record in worker.records(batch, settings):
            yield [record]


def work_through(
    job: Job,
    items: Sequence[Item],
    execute: Execute = in_this_process,
    *,
    retry: bool = False,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Make one result of each item in ``job.output``, except of those that have one; then put them in the order of the
    items.

    Args:
        execute: what has the batches done. The results do not depend on it.
        retry: do items again that had an error.

    Raises:
        CorpusError: the folder has results of other settings, or of other items with the same ids.
        ValueError: the model cannot be loaded, or the options do not fit it.
    """
    settings = hashlib.sha256(json.dumps(job.settings, sort_keys=True).encode()).hexdigest()
    with Journal(job.output, job.settings, retry) as journal:
        open_items = []
        for item in items:
            known = journal.digest(item.id)
            if known is None:
                open_items.append(item)
            elif known != item.digest(job.kind, settings):
                raise CorpusError(
                    f"the item {item.id!r} is not what it was when its result was written; choose another --output"
                )
        before = len(items) - len(open_items)
        lengths = [item.length_s(job.kind) for item in open_items]
        length = dict(zip((item.id for item in open_items), lengths, strict=True))
        done, seconds, total = 0, 0.0, sum(lengths)
        progress(Progress(done, len(open_items), seconds, total))
        if open_items:
            batches = packed(open_items, lengths, BATCH_S, job.batch, max(job.batch, MOST_ITEMS))
            for records in execute(job, batches, settings):
                journal.append(records)
                done += len(records)
                seconds += sum(length[record["id"]] for record in records)
                progress(Progress(done, len(open_items), seconds, total))
        journal.put_in_order([item.id for item in items])
        return Outcome(len(items), before, journal.errors)
