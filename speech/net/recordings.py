"""Recordings that clients send: read and transcribed one at a time, in a thread beside the live streams."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from array import array
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import AudioReader, to_mono_float32
from loquent.speech.audio.resample import resample_blocks
from loquent.speech.net.limits import Limits
from loquent.speech.net.protocol import MAX_CHANNELS
from loquent.speech.net.uploads import Refused, Uploads, watched
from loquent.speech.runtime.options import OptionError
from loquent.speech.transcript import Segment

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Job:
    """A recording, and what is asked of the recogniser.

    options:  of the offline recogniser, by its own names.
    of_field: the name of the client's field that each option comes from.
    """

    file: BinaryIO
    options: Mapping[str, Any]
    of_field: Mapping[str, str]

    def blamed(self, error: Exception) -> str | None:
        """The field whose option an error is about: it begins with the option's name, or has it in quotes or so."""
        text = str(error)
        if isinstance(error, OptionError):
            return self.of_field.get(text.partition(":")[0])
        return next((field for option, field in self.of_field.items() if option in text), None)


class Heard(NamedTuple):
    """What a recording, or a channel of it, came to.

    result: what the recogniser returned.
    duration_s: of the recording.
    """

    result: Any
    duration_s: float


class Recordings:
    """Places for recordings, and the thread that reads and transcribes them.

    A file waits on disk, and is decoded when its turn comes. From its last byte on, it holds one of ``max_uploads``
    places until the last byte of its answer is sent, or its client is gone: then whatever is computed for it ends at
    the next window.

    Args:
        transcribe: the offline recogniser, if there is one; see `server.create_app`.
    """

    def __init__(self, transcribe: Callable[..., Any] | None, limits: Limits) -> None:
        self.recognizer, self.limits, self.uploads = transcribe, limits, Uploads(limits)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loquent-transcribe")
        self._stopping = threading.Event()

    def shut_down(self) -> None:
        """Let the worker thread end, after the window under way."""
        self._stopping.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def takes(self, option: str) -> bool:
        """Whether the offline recogniser has an option."""
        if self.recognizer is None:
            return False
        parameters = inspect.signature(self.recognizer).parameters
        return option in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())

    async def samples(self, job: Job, receive: Receive) -> np.ndarray:
        """The recording, mixed to mono, at 16 kHz.

        Raises:
            Refused: it cannot be read, or is too long.
            ClientDisconnect: its client has gone.
        """
        return await self._in_worker(receive, lambda gone: self._read(job, gone)[0])

    async def transcribe(self, job: Job, receive: Receive, apart: bool = False) -> list[Heard]:
        """What the recording comes to.

        Args:
            apart: whether each channel is a recording of its own, or all are mixed to one.

        Raises:
            Refused: it cannot be read, is too long, or an option is wrong.
            ClientDisconnect: its client has gone.
        """
        return await self._in_worker(receive, lambda gone: self._transcribed(job, gone, apart))

    async def segments(self, job: Job, gone: threading.Event) -> AsyncGenerator[Segment, None]:
        """The segments of the recording, each as soon as the recogniser tells it; closing the generator ends the work.

        Args:
            gone: set once the client is.

        Raises:
            Refused: it cannot be read, is too long, or an option is wrong.
        """
        loop, told = asyncio.get_running_loop(), asyncio.Queue[Segment | None]()

        def tell(segment: Segment) -> None:
            loop.call_soon_threadsafe(told.put_nowait, segment)

        besides: dict[str, Any] = {"on_segment": tell} if self.takes("on_segment") else {}
        result = asyncio.wrap_future(self._worker.submit(self._transcribed, job, gone, **besides))
        result.add_done_callback(lambda _: told.put_nowait(None))
        count = 0
        try:
            while (segment := await told.get()) is not None:
                count += 1
                yield segment
            ((transcript, _),) = await result
            for segment in list(transcript.segments)[count:]:  # of a recogniser that tells none by the way
                yield segment
        finally:
            gone.set()
            result.cancel()  # if its turn has not come

    async def _in_worker(self, receive: Receive, function: Callable[[threading.Event], Any]) -> Any:
        """Run a function when its turn comes, until its client is gone."""
        gone = threading.Event()
        async with watched(receive, gone) as watcher:
            job = self._worker.submit(function, gone)
            result = asyncio.wrap_future(job)
            await asyncio.wait((result, watcher), return_when=asyncio.FIRST_COMPLETED)
            if gone.is_set() and job.cancel():  # its turn had not come
                raise ClientDisconnect
            return await result

    def _transcribed(self, job: Job, gone: threading.Event, apart: bool = False, **besides: Any) -> list[Heard]:
        """What each channel comes to, or all of them together."""
        assert self.recognizer is not None, "whoever asks has looked"
        for option in job.options:
            if not self.takes(option):
                field = job.of_field[option]
                raise Refused(400, f"{field}: this server's recogniser has no such option; leave it out", field)
        heard = []
        for samples in self._read(job, gone, apart):
            try:
                result = self.recognizer(samples, progress=lambda *_: self._go_on(gone), **besides, **job.options)
            except ValueError as error:
                raise Refused(400, str(error), job.blamed(error)) from error
            heard.append(Heard(result, len(samples) / SAMPLE_RATE))
        return heard

    def _read(self, job: Job, gone: threading.Event, apart: bool = False) -> list[np.ndarray]:
        """Samples at 16 kHz, of each channel or of all together. At the file's own rate no more than 1 s is held."""
        try:
            with AudioReader(job.file) as reader:
                count = reader.channels if apart else 1
                if count > MAX_CHANNELS:
                    raise Refused(400, f"the recording has {count} channels; at most {MAX_CHANNELS} are taken", "file")
                longest_s = self.limits.max_upload_s / count
                samples = [array("f") for _ in range(count)]
                for parts in _resampled(reader, count):
                    self._go_on(gone)
                    for one, part in zip(samples, parts, strict=True):
                        one.frombytes(part.tobytes())
                    if len(samples[0]) > longest_s * SAMPLE_RATE:
                        of = f" of {count} channels" if count > 1 else ""
                        raise Refused(413, f"the file is longer than the {longest_s:g} s{of} this server takes", "file")
        except AudioError as error:
            raise Refused(400, str(error), "file") from error
        return [np.frombuffer(one, np.float32) for one in samples]

    def _go_on(self, gone: threading.Event) -> None:
        if self._stopping.is_set():
            raise Refused(503, "the server is shutting down")
        if gone.is_set():
            raise ClientDisconnect


def _resampled(reader: AudioReader, count: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Pieces at 16 kHz, of each of ``count`` channels, or of all together if it is 1."""

    def resampled(blocks: Iterator[np.ndarray], channel: int) -> Iterator[np.ndarray]:
        mono = (
            to_mono_float32(block, reader.channels) if count == 1 else to_mono_float32(block[:, channel].copy())
            for block in blocks
        )
        return resample_blocks(mono, reader.sample_rate, SAMPLE_RATE, reader.name)

    copies = itertools.tee(reader.blocks(1.0), count)
    return zip(*map(resampled, copies, range(count)), strict=True)
