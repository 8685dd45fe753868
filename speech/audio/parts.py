"""The parts of an audio file, as far as its bytes show them to somebody who decodes nothing.

Ogg, FLAC and WAV files may be joined end to end; each part is a file of its own, with its own rate and channels.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol


class Readable(Protocol):
    """What reading the bytes of a file takes."""

    def read(self, size: int = ..., /) -> bytes: ...

    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def tell(self) -> int: ...


class Section(io.RawIOBase):
    """Bytes ``start`` … ``end`` - 1 of a file that can seek, as a file of its own.

    Several sections of one file can be read in turn: each keeps its own position.

    Attributes:
        name: FFmpeg tells formats without a signature, such as G.722, by the ending.

    Args:
        head: takes the place of as many bytes at the start.
        damaged: bytes in the middle are missing or wrong.
        cut: it ends where it cannot have been meant to end.
    """

    def __init__(
        self, file: BinaryIO, start: int, end: int, head: bytes = b"", damaged: bool = False, cut: bool = False
    ) -> None:
        super().__init__()
        self.name = "audio"
        self.damaged, self.cut = damaged, cut
        self.size = end - start
        self.is_whole = start == 0 and not head  # given that it is the only one
        self._file, self._start, self._head, self._at = file, start, head, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        return super().read(size) or b""

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self.size - self._at))
        if self._at < len(self._head):
            data = self._head[self._at : self._at + wanted]
        else:
            self._file.seek(self._start + self._at)
            data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def find_parts(file: BinaryIO) -> list[Section]:
    """The parts of a file from where it stands to its end, at least one."""
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    after_tags = after_id3(file, start)
    file.seek(after_tags)
    head = file.read(12)
    if head[:4] == b"OggS":
        return _ogg_links(file, start, after_tags, end)
    if head[:4] == b"RF64" and head[8:] == b"WAVE" and after_tags == start:
        return [Section(file, start, end, _as_riff(file, start))]
    begins = [start]
    if head[:4] == b"fLaC":
        begins += _flac_streams(file, after_tags + 4)
    elif head[:4] == b"RIFF" and head[8:] == b"WAVE":
        begins += _riff_files(file, after_tags, end)
    return [Section(file, a, b) for a, b in zip(begins, [*begins[1:], end], strict=True)]


def after_id3(file: Readable, at: int) -> int:
    """Where the bytes after the ID3v2 tags begin (https://id3.org/id3v2.4.0-structure, section 3.1)."""
    file.seek(at)
    while (tag := file.read(10))[:3] == b"ID3" and len(tag) == 10:
        at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        file.seek(at)
    return at


def _ogg_links(file: BinaryIO, start: int, at: int, end: int) -> list[Section]:
    """The links of a chain (RFC 3533, section 6): pages that begin a stream, after pages that do not, begin a link.

    They are damaged if a page is missing or not intact: libsndfile would close the gap, FFmpeg tells how long it is.
    """
    begins, damaged, headers = [start], [False], True
    numbers: dict[bytes, int] = {}  # of the last page, by stream
    while at < end:
        file.seek(at)
        head = file.read(27 + 255)
        if head[:4] != b"OggS" or len(head) < 27:  # look for the next page
            damaged[-1] = True
            next_page = head.find(b"OggS", 1)
            at += next_page if next_page > 0 else max(1, len(head) - 3)
            continue
        size = 27 + head[26] + sum(head[27 : 27 + head[26]])
        if at + size > end:
            break
        file.seek(at)
        page = file.read(size)
        serial, number = page[14:18], int.from_bytes(page[18:22], "little")
        intact = _ogg_checksum(page) == page[22:26]
        begins_stream = intact and bool(page[5] & 2)
        if begins_stream and not headers:
            begins.append(at)
            damaged.append(False)
        if not begins_stream:
            intact = intact and number == numbers.get(serial, number - 1) + 1
        damaged[-1] = damaged[-1] or not intact
        numbers[serial] = number
        headers = begins_stream
        at += size if intact or at + size == end or _page_at(file, at + size) else 1
    ends = [*begins[1:], end]
    cuts = [*[False] * (len(begins) - 1), at < end]
    return [
        Section(file, a, b, damaged=bad, cut=cut) for a, b, bad, cut in zip(begins, ends, damaged, cuts, strict=True)
    ]


def _page_at(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    return file.read(4) == b"OggS"


def _ogg_checksum(page: bytes) -> bytes:
    """The CRC of a page, which is that of zlib with the bits of everything in the opposite order, from 0."""
    reflected = (page[:22] + bytes(4) + page[26:]).translate(REVERSED)
    crc = zlib.crc32(reflected, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(REVERSED)


REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _flac_streams(file: BinaryIO, at: int) -> Iterator[int]:
    """Where further FLAC streams begin: the marker and a STREAMINFO block, which is 34 bytes long, in a usable form."""
    file.seek(at)
    held = b""
    while block := file.read(1 << 20):
        data = held + block
        found = data.find(b"fLaC")
        while 0 <= found <= len(data) - 21:
            least_block, rate = struct.unpack(">H", data[found + 8 : found + 10])[0], data[found + 18 : found + 21]
            if data[found + 5 : found + 8] == b"\0\0\x22" and least_block >= 16 and int.from_bytes(rate, "big") >> 4:
                yield at - len(held) + found
            found = data.find(b"fLaC", found + 1)
        at += len(block)
        held = data[-20:]
        file.seek(at)


def _riff_files(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    at = start
    while at + 12 <= end:
        file.seek(at)
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        if at > start:
            yield at
        size = struct.unpack("<I", head[4:8])[0]
        at += 8 + size + size % 2


def _as_riff(file: BinaryIO, start: int) -> bytes:
    """The header of a piped RF64 file, whose lengths nobody filled in, as that of a WAV file without a length."""
    file.seek(start)
    head = file.read(4096)
    data = head.find(b"data\xff\xff\xff\xff")
    if data < 0 or head[12:16] != b"ds64" or head[28:36] not in (bytes(8), b"\xff" * 8):
        return b""
    return b"RIFF" + head[4:12] + b"JUNK" + head[16 : data + 8]
