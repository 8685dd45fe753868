"""Results as lhotse's supervisions: what is said when in which recording."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loquent.speech.corpus.items import Item
from loquent.speech.corpus.journal import Record, write_whole
from loquent.speech.corpus.workers import Work


def write_supervisions(path: Path, work: Work, items: Iterable[Item], records: Iterable[Record]) -> None:
    """Write a file that ``lhotse.SupervisionSet.from_jsonl`` reads; replaces it at once.

    Args:
        items: of the corpus. A recording has the id that lhotse gave it, else that of its item.
        records: results; errors are left out, and so are translations of texts that belong to no recording.
    """
    known = {item.id: item for item in items}
    rows = (row for record in records if (item := known.get(record["id"])) for row in _rows(work, item, record))
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _rows(work: Work, item: Item, record: Record) -> Iterator[dict[str, Any]]:
    """One supervision for each segment of a transcript, or for the whole of a spoken or translated text."""
    if "error" in record:
        return
    about = {"channel": item.channel or 0, "language": record.get("language"), "speaker": item.speaker}
    about = {name: value for name, value in about.items() if value is not None}
    if work == "transcribe":
        for number, segment in enumerate(record["segments"]):
            yield {
                "id": f"{item.id}-{number}",
                "recording_id": item.recording or item.id,
                **_stretch((item.start or 0.0) + segment["start"], segment["end"] - segment["start"]),
                "text": segment["text"],
                **about,
                **_alignment(segment, item.start or 0.0),
            }
    elif work == "speak":
        said = {"id": item.id, "recording_id": item.id, **_stretch(0.0, record["duration"]), "text": record["text"]}
        yield {**said, **about, "channel": 0}
    elif item.recording is not None:
        place = _stretch(item.start or 0.0, item.duration or 0.0)
        yield {"id": item.id, "recording_id": item.recording, **place, "text": record["text"], **about}


def _stretch(start: float, duration: float) -> dict[str, float]:
    return {"start": round(start, 3), "duration": round(duration, 3)}


def _alignment(segment: Mapping[str, Any], offset: float) -> dict[str, Any]:
    """The words of a segment, if they are timed: [word, start, duration, score]."""
    words = [
        [
            word["text"].strip(),
            round(offset + word["start"], 3),
            round(word["end"] - word["start"], 3),
            word.get("confidence"),
        ]
        for word in segment.get("words", ())
    ]
    return {"alignment": {"word": words}} if words else {}
