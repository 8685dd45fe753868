"""Where transcripts go: to standard output in the order of the recordings, or to files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from loquent.speech.captions import write
from loquent.speech.commands.arguments import CommandError
from loquent.speech.commands.output import Output, make_folder
from loquent.speech.commands.recordings import Recording
from loquent.speech.transcript import Progress, Segment


class Results:
    """Collects what becomes of each recording and writes it as early as it can.

    Leaving it as a context manager, however that comes about, keeps what has been transcribed so far.

    Args:
        recordings: in the order of the output.
        failures: reasons by name of what could not be found, to be told at the end with those to come.
        output: the files, or the format on standard output.
        streamed: the text is displayed by others while it comes.
        verbose: show every segment on standard error.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        failures: dict[str, str],
        output: Output,
        streamed: bool,
        verbose: bool | None,
    ) -> None:
        self.output, self.verbose = output, verbose
        self.failures = dict(failures)
        self._total = len(recordings) + len(failures)
        prints_text = output.folder is None and output.format == "txt"
        self.displayed = streamed and (prints_text or (output.folder is not None and sys.stdout.isatty()))
        self._prints_text = prints_text and not streamed
        self._several = len(recordings) > 1
        self._unprinted = list(recordings)  # in order; the first may be printed in part
        self._printed_segments = 0
        self._headed = 0
        self._open = list(recordings)
        if output.folder is not None:
            make_folder(output.folder)

    def add(self, recording: Recording, segment: Segment) -> None:
        """Take a segment of a recording."""
        recording.segments.append(segment)
        if self.verbose and not self.displayed:
            name = f"{recording.name} " if self._several else ""
            times = f"[{_clock(segment.start)} --> {_clock(segment.end)}]"
            self._tell(f"{name}{times} {segment.text.strip()}")
        self._print_in_order()

    def finished(self, recording: Recording, language: str | None, warnings: Sequence[str] = ()) -> None:
        """Write a recording that is complete; ``warnings`` say what is damaged in it."""
        recording.language = language
        self._open.remove(recording)
        for warning in warnings:
            named = warning.replace(repr(os.fspath(recording.path)), f"'{recording.name}'")
            self._tell(f"loquent: {named if recording.name in named else f'{recording.name}: {named}'}")
        self._write(recording)
        self._print_in_order()

    def failed(self, recording: Recording, error: Exception) -> None:
        """Give a recording up, and keep what it has."""
        self.failures[recording.name] = str(error).replace(repr(os.fspath(recording.path)), f"'{recording.name}'")
        self._open.remove(recording)
        if recording.segments:
            self._write(recording, incomplete=True)
        self._print_in_order()

    def head(self, recording: Recording) -> None:
        """Tell on standard output which of several recordings the text that follows is from."""
        if self._several:
            print("\n" * bool(self._headed) + f"==> {recording.name} <==", flush=True)
            self._headed += 1

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *exc_info: object) -> None:
        begun = [recording for recording in self._open if recording.segments]
        for recording in begun:
            self._write(recording, incomplete=True)
            self._tell(f"loquent: {recording.name} was transcribed only up to {_clock(recording.segments[-1].end)}")
        self._open = []
        self._print_in_order()
        if self.failures:
            told = [f"  {name}: {reason}" for name, reason in self.failures.items()]
            self._tell(f"loquent: {len(self.failures)} of {self._total} could not be transcribed:", *told)

    def _tell(self, *lines: str) -> None:
        with _beside_progress():
            print(*lines, sep="\n", file=sys.stderr)

    def _write(self, recording: Recording, incomplete: bool = False) -> None:
        if self.output.folder is not None:
            try:
                self.output.save(recording, incomplete)
            except CommandError as error:  # the others may fit on the disk, or have a folder that can be written
                before = self.failures.get(recording.name)
                self.failures[recording.name] = f"{before}; {error}" if before else str(error)
        elif not (self._prints_text or self.displayed):
            with _beside_progress():
                self.output.write(sys.stdout, self.output.format, recording)

    def _print_in_order(self) -> None:
        """Print the text of the first recording as it comes, and of the others once those before them are complete."""
        while self._prints_text and self._unprinted:
            recording = self._unprinted[0]
            new = recording.segments[self._printed_segments :]
            complete = recording not in self._open
            if new or complete:
                with _beside_progress():
                    if not self._printed_segments and (new or recording.name not in self.failures):
                        self.head(recording)
                    write("txt", new, sys.stdout)
            self._printed_segments += len(new)
            if not complete:
                return
            self._unprinted.pop(0)
            self._printed_segments = 0


@contextlib.contextmanager
def progress_bar(
    recordings: Sequence[Recording], shown: bool
) -> Iterator[Callable[[list[Recording]], Progress | None]]:
    """A bar over seconds of audio on standard error, if that is a terminal; gives what makes a batch's callback."""
    if not shown or not sys.stderr.isatty():
        yield lambda batch: None
        return
    from tqdm import tqdm

    lengths = {one.name: _length(one.path) for one in recordings}
    done = dict.fromkeys(lengths, 0.0)
    total = sum(lengths.values())
    layout = "{desc} {percentage:3.0f}% |{bar:24}| [{elapsed}<{remaining}]"
    with tqdm(desc="loading the model", total=total or None, bar_format=layout, leave=False, smoothing=0.0) as bar:

        def callback(batch: list[Recording]) -> Progress:
            if not bar.n:
                bar.reset()  # the model's time is not the recordings'
                bar.set_description_str("transcribing")

            def update(number: int, seconds: float, length: float | None) -> None:
                name = batch[number].name
                bar.update(seconds - done[name])
                done[name] = seconds
                speed = bar.n / max(bar.format_dict["elapsed"], 1e-3)
                bar.set_description_str(f"{_clock(bar.n)[:-4]} of {_clock(total)[:-4]}, {speed:.1f}× real time")

            return update

        yield callback


def _length(path: Path) -> float:
    """Seconds, as far as the header tells."""
    from loquent.speech.audio.errors import AudioError
    from loquent.speech.audio.files import AudioReader

    try:
        with AudioReader(path) as reader:
            return reader.duration_s or 0.0
    except (AudioError, OSError):
        return 0.0  # told when its turn comes


@contextlib.contextmanager
def _beside_progress() -> Iterator[None]:
    """Write without running into the progress bar."""
    if "tqdm" not in sys.modules:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stdout):
        yield


def _clock(seconds: float) -> str:
    ms = round(seconds * 1000)
    hours = f"{ms // 3600000}:" if ms >= 3600000 else ""
    return f"{hours}{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"
