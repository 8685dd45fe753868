"""Results on disk, one line each, of which a kill or a power cut takes none but the one that was being written.

A folder holds ``settings.json``, which says what its results were made with, and ``results.jsonl``. Every batch of
results is appended with one write and is on the disk when `Journal.append` returns. Whoever opens the folder again cuts
off what was left of an unfinished line, and goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from loquent.speech.corpus.manifest import CorpusError
from loquent.speech.json_files import read_json_object

Record = dict[str, Any]  # "id" and "digest" of an item, and its result or an "error"


class Journal:
    """The results in a folder; one process at a time has it open. Use it as a context manager.

    Args:
        folder: made if it is not there.
        settings: by name, of the results. They have to be those of the results that are there.
        retry: forget the errors that are there, so that their items come again.

    Attributes:
        path: of the results.
        errors: how many of the results are errors.

    Raises:
        CorpusError: another process has the folder open, its settings differ, or its results are damaged.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], retry: bool = False) -> None:
        self.path = folder / "results.jsonl"
        self.errors = 0
        self._places: dict[str, tuple[str, int, int]] = {}  # by id: the digest, where the line begins and its length
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise CorpusError(f"another process writes to {os.fspath(folder)!r}; wait for its end") from None
        try:
            self._file: BinaryIO = open(self.path, "a+b")  # noqa: SIM115
            try:
                self._repair()
                _settle(folder / "settings.json", settings, keep=bool(self._places))
                if retry and self.errors:
                    self._rewrite([record["id"] for record in self.records() if "error" not in record])
            except BaseException:
                self._file.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    def __len__(self) -> int:
        return len(self._places)

    def digest(self, id: str) -> str | None:
        """Of the item that there is a result of; None if there is none."""
        place = self._places.get(id)
        return None if place is None else place[0]

    def append(self, records: Iterable[Record]) -> None:
        """Put results on the disk; those of items that have one are left out."""
        at = self._file.seek(0, os.SEEK_END)
        lines = bytearray()
        for record in records:
            if record["id"] not in self._places:
                line = _line(record)
                self._note(record, at + len(lines), len(line))
                lines += line
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())

    def put_in_order(self, ids: Sequence[str]) -> None:
        """Write the results in the order of their items, with what there is of other items behind them."""
        wanted = dict.fromkeys([*(id for id in ids if id in self._places), *self._places])
        if [*wanted] != [*self._places]:
            self._rewrite([*wanted])

    def records(self) -> Iterator[Record]:
        """All results, in the order of the file."""
        for id in self._places:
            yield self._read(id)

    def _read_line(self, id: str) -> bytes:
        _, start, size = self._places[id]
        self._file.seek(start)
        return self._file.read(size)

    def _read(self, id: str) -> Record:
        record: Record = json.loads(self._read_line(id))
        return record

    def _note(self, record: Record, start: int, size: int) -> None:
        self._places[record["id"]] = (record["digest"], start, size)
        self.errors += "error" in record

    def _repair(self) -> None:
        """Find the lines, and cut off one that was not finished."""
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        at = 0
        for number, line in enumerate(self._file, start=1):
            try:
                record = json.loads(line)
                if not line.endswith(b"\n"):
                    raise ValueError("the line has no end")
                self._note(record, at, len(line))
            except (ValueError, KeyError, TypeError) as error:
                if at + len(line) < end:
                    raise CorpusError(f"{os.fspath(self.path)!r}, line {number} is damaged: {error}") from error
                self._file.truncate(at)
                os.fsync(self._file.fileno())
                return
            at += len(line)

    def _rewrite(self, ids: Sequence[str]) -> None:
        """Write these results, in this order, in place of all that there are."""
        scratch = self.path.with_name(".results.jsonl.part")
        with open(scratch, "wb") as file:
            for id in ids:
                file.write(self._read_line(id))
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, self.path)
        sync_folder(self.path.parent)
        self._file.close()
        self._file = open(self.path, "a+b")  # noqa: SIM115
        self._places, self.errors = {}, 0
        self._repair()


def _line(record: Record) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # the name of a file that is not UTF-8
        return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _settle(path: Path, settings: Mapping[str, Any], keep: bool) -> None:
    """Write the settings; if there are results to ``keep``, refuse others than theirs."""
    asked = json.loads(json.dumps(settings))
    if not keep:
        write_whole(path, json.dumps(asked, indent=1, ensure_ascii=False) + "\n")
        return
    try:
        there = read_json_object(path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"cannot tell what the results beside it were made with: {error}") from error
    for name in dict.fromkeys([*there, *asked]):
        if there.get(name) != asked.get(name):
            raise CorpusError(
                f"{os.fspath(path.parent)!r} has results with {name} {json.dumps(there.get(name))}, "
                f"not {json.dumps(asked.get(name))}; choose another --output, or pass the same options"
            )


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there with all of its text or not at all, whatever happens meanwhile."""
    scratch = path.with_name(f".{path.name}.part")
    with open(scratch, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
