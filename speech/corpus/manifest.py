"""Manifests of corpora: JSONL with our names or NeMo's, JSONL within a zip archive, lhotse cuts, folders of texts.

A row that makes no sense becomes an item with a fault, so that it is told of among the results and costs nothing else.
"""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loquent.speech.corpus.items import Item, Kind

MONO_CUTS = ("MonoCut", "Cut")


class CorpusError(ValueError):
    """A corpus that cannot be read, or an output folder that cannot be used for it."""


def read_corpus(path: Path, kind: Kind) -> list[Item]:
    """The items of a manifest, in its order, each once.

    Args:
        path: ``*.jsonl`` (its paths are relative to it), a folder with ``manifest.jsonl``, ``*.zip`` with one and the
            recordings inside, or lhotse cuts (``*cuts*.jsonl``, ``*.jsonl.gz``). For texts also a folder with ``*.txt``
            below it, each an item.
        kind: what is wanted of a row: its recording, or its text. Of a cut with several supervisions, each has a text.

    Raises:
        CorpusError: there is no manifest, or it has the same id for items that differ.
    """
    manifest = path / "manifest.jsonl" if path.is_dir() else path
    if path.is_dir() and kind == "text" and not manifest.exists():
        return _unique(_texts_below(path), kind, path)
    if not manifest.is_file():
        raise CorpusError(f"no manifest at {os.fspath(path)!r}; expected *.jsonl, *.jsonl.gz, *.zip, or a folder")
    try:
        if manifest.suffix == ".zip":
            rows = _from_zip(manifest, kind)
        elif manifest.name.endswith(".jsonl.gz") or "cuts" in manifest.name:
            rows = _from_cuts(manifest, kind)
        else:
            with manifest.open(encoding="utf-8") as lines:
                return _unique(_from_rows(lines, manifest, kind), kind, path)
        return _unique(rows, kind, path)
    except (OSError, UnicodeDecodeError, EOFError, zipfile.BadZipFile) as error:
        raise CorpusError(f"cannot read {os.fspath(manifest)!r}: {error}") from error


def _unique(items: Iterable[Item], kind: Kind, path: Path) -> list[Item]:
    found: dict[str, Item] = {}
    for item in items:
        known = found.setdefault(item.id, item)
        if known is not item and known.digest(kind, "") != item.digest(kind, ""):
            raise CorpusError(f"{os.fspath(path)!r} lists different items as {item.id!r}; give each an id of its own")
    if not found:
        raise CorpusError(f"nothing is listed in {os.fspath(path)!r}")
    return list(found.values())


def _texts_below(folder: Path) -> Iterator[Item]:
    for file in sorted(folder.rglob("*.txt")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        try:
            yield Item(name, " ".join(file.read_text(encoding="utf-8-sig").split()))
        except (OSError, UnicodeDecodeError) as error:
            yield Item(name, fault=f"cannot read {os.fspath(file)!r}: {error}")


def _from_zip(file: Path, kind: Kind) -> Iterator[Item]:
    with zipfile.ZipFile(file) as archive:
        try:
            lines = archive.read("manifest.jsonl").decode().splitlines()
        except KeyError:
            raise CorpusError(f"{os.fspath(file)!r} has no manifest.jsonl inside") from None
    return _from_rows(lines, file, kind, archive=os.fspath(file.absolute()))


def _rows(lines: Iterable[str], file: Path) -> Iterator[tuple[str, dict[str, Any] | Item]]:
    """The objects of JSONL, each with a name for those that have no id; a fault where there is no object."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = f"{file.name}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield name, Item(name, fault=f"not JSON: {error}")
            continue
        yield name, row if isinstance(row, dict) else Item(name, fault=f"expected an object, got {line.strip()[:60]}")


def _from_rows(lines: Iterable[str], file: Path, kind: Kind, archive: str | None = None) -> Iterator[Item]:
    """Rows with ``path`` or NeMo's ``audio_filepath``, ``duration``, ``text``, and ``start`` or NeMo's ``offset``."""
    folder = os.path.abspath(file.parent)
    for name, row in _rows(lines, file):
        if isinstance(row, Item):
            yield row
            continue
        path = row.get("path", row.get("audio_filepath"))
        path = path if isinstance(path, str) else None
        start = row.get("start", row.get("offset"))
        id = row.get("id", path if path is not None else name)
        if start is not None and "id" not in row:
            id = f"{id}@{start}"
        try:
            if kind == "audio" and path is None:
                raise ValueError("has no path (or audio_filepath) of a recording")
            if kind == "text" and not isinstance(row.get("text"), str):
                raise ValueError("has no text")
            yield Item(
                str(id),
                text=row.get("text"),
                path=None if path is None else path if archive else os.path.join(folder, path),
                written=path,
                archive=archive,
                start=_seconds(row, "start", start),
                duration=_seconds(row, "duration", row.get("duration")),
                language=row.get("language", row.get("lang")),
                speaker=row.get("speaker"),
            )
        except ValueError as error:
            yield Item(str(id), fault=f"{name} {error}")


def _seconds(row: Mapping[str, Any], name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"has no number of seconds as {name}: {value!r}")
    return float(value)


def _from_cuts(file: Path, kind: Kind) -> Iterator[Item]:
    """Cuts of one recording, read without lhotse: plain JSON. A cut is a recording, a supervision of it a text."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for name, cut in _rows(lines, file):
            if isinstance(cut, Item):
                yield cut
                continue
            id = str(cut.get("id", name))
            try:
                yield from _of_cut(cut, file.parent, kind)
            except ValueError as error:
                yield Item(id, fault=f"{name} {error}")
            except (KeyError, TypeError) as error:
                yield Item(id, fault=f"{name} is not a lhotse cut: {error!r}")


def _of_cut(cut: Mapping[str, Any], folder: Path, kind: Kind) -> list[Item]:
    if cut["type"] not in MONO_CUTS:
        raise ValueError(f"is a {cut['type']}; expected a MonoCut of one recording")
    said = cut["supervisions"]
    if kind == "text":
        return [
            Item(
                str(one["id"]),
                text=str(one["text"]),
                start=float(cut["start"]) + float(one["start"]),
                duration=float(one["duration"]),
                language=one.get("language"),
                speaker=one.get("speaker"),
                recording=one["recording_id"],
            )
            for one in said
        ]
    recording, channel = cut["recording"], cut["channel"]
    if recording.get("transforms"):
        raise ValueError("is of a recording with transforms, which are not applied here; save its audio first")
    source = next((one for one in recording["sources"] if channel in one["channels"]), None)
    if source is None or source["type"] != "file":
        raise ValueError(f"has no file with the channel {channel!r} among its sources")
    channels, written = source["channels"], source["source"]
    start, duration = float(cut["start"]), float(cut["duration"])
    whole = start == 0 and abs(duration - float(recording["duration"])) < 1e-3
    beside = folder / written  # lhotse's own paths are relative to where it ran
    speakers = {one.get("speaker") for one in said}
    return [
        Item(
            str(cut["id"]),
            text=" ".join(text for one in said if (text := one.get("text"))) or None,
            path=os.path.abspath(beside if beside.exists() else written),
            written=written,
            start=None if whole else start,
            duration=duration,
            channel=channels.index(channel) if len(channels) > 1 else None,
            language=next((one["language"] for one in said if one.get("language")), None),
            speaker=speakers.pop() if len(speakers) == 1 else None,
            recording=recording["id"],
        )
    ]
