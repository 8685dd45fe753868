"""A recogniser's task whose words say who spoke them: it wraps a task of recognition and leaves its text alone."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loquent.asr.recordings.recording import SAMPLE_RATE
from loquent.asr.speakers.clustering import Voices
from loquent.asr.speakers.labels import KEPT_S, SpeakerLabels, main_speaker
from loquent.speech.nn.state import MOST, State
from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import Fetched, staged
from loquent.speech.runtime.events import Event, Final, Word
from loquent.speech.runtime.task import Relaxing, Restorable, Shaped, Task, Turn


@dataclass
class HeardState(State):
    """The pool of the recogniser, and the audio that the streams heard of late."""

    heard: Tensor  # (S, KEPT_S · 16000), sample n of a stream in entry n modulo the length
    recognition: State


@dataclass
class SpeakerMemo:
    """What is remembered of one stream.

    recognition: the recogniser's memo.
    speakers:    whether words are labelled.
    samples:     received.
    voices:      so far.
    spoken:      (speaker, seconds) of the words since the last `Final`.
    """

    recognition: Any
    speakers: bool
    samples: int = 0
    voices: Voices = field(default_factory=Voices)
    spoken: list[tuple[int, float]] = field(default_factory=list)

    @property
    def language(self) -> str | None:
        """The recogniser's, if it knows one."""
        return getattr(self.recognition, "language", None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        own = {name: value for name, value in vars(self).items() if name not in ("recognition", "voices")}
        return own | {"recognition": self.recognition.to_dict(), "voices": dataclasses.asdict(self.voices)}


class SpeakerStep(NamedTuple):
    """A step under way."""

    memos: list[SpeakerMemo]
    state: HeardState
    rows: Tensor
    received: Fetched  # new samples of each stream
    recognition: Any


class SpeakerTask:
    """A `Task` like the one that it wraps, whose `Word` and `Final` events have a ``speaker``.

    A stream asks for it with the option ``speakers``, which is true by default. A word's speaker is that of the 1.5 s
    around it, as far as they have been heard when the word is committed.
    """

    def __init__(self, task: Task, labels: SpeakerLabels) -> None:
        if (task.takes.kind, task.takes.sample_rate, task.gives.kind) != ("audio", SAMPLE_RATE, "text"):
            raise ValueError(
                f"speakers are told apart in speech of {SAMPLE_RATE} Hz that becomes text, not {task.takes}"
            )
        self.task, self.labels = task, labels
        self.takes, self.gives = task.takes, task.gives
        self.kept = round(KEPT_S * SAMPLE_RATE)
        shown = repr((labels.embedding.fingerprint, labels.threshold, labels.most, labels.window_s))
        self.fingerprint = hashlib.sha256((task.fingerprint + shown).encode()).hexdigest()
        self.Options: type[Any] = dataclasses.make_dataclass(
            "SpeakerOptions", [("speakers", bool, True)], bases=(task.Options,), frozen=True
        )
        if isinstance(task, Shaped):
            self.widths = task.widths
        if isinstance(task, Relaxing):
            self.relaxed = self._relaxed

    def initial_state(self, slots: int) -> HeardState:
        """Pool of ``slots`` streams."""
        recognition = self.task.initial_state(slots)
        device = next(tensor.device for _, tensor, _ in recognition.leaves())
        return HeardState(torch.zeros(slots, self.kept, device=device), recognition)

    def start(self, options: Any) -> SpeakerMemo:
        """Begin a stream.

        Raises:
            ValueError: the recogniser cannot do what the options ask.
        """
        return SpeakerMemo(self.task.start(self._own(options)), options.speakers)

    def restore(self, values: dict[str, Any]) -> SpeakerMemo:
        """Inverse of ``SpeakerMemo.to_dict``.

        Raises:
            ValueError: the values are not those of such a stream.
        """
        match values:
            case {
                "recognition": dict(recognition),
                "speakers": bool(speakers),
                "samples": int(samples),
                "voices": dict(voices),
                "spoken": list(spoken),
            } if 0 <= samples <= MOST:
                memo = SpeakerMemo(None, speakers, samples, Voices.from_dict(voices))
                for item in spoken:
                    match item:
                        case [int(speaker), float(seconds)] if 0 <= speaker < len(memo.voices.centres):
                            memo.spoken.append((speaker, seconds))
                        case _:
                            raise ValueError(f"not the memo of a stream with speakers: {str(item)[:60]}")
                memo.recognition = self.task.restore(recognition)
                return memo
        raise ValueError("not the memo of a stream with speakers")

    def check_restored(self, memo: SpeakerMemo, state: HeardState) -> None:
        """See `loquent.speech.runtime.task.Restorable`."""
        if isinstance(self.task, Restorable):
            self.task.check_restored(memo.recognition, state.recognition)

    def configure(self, memo: SpeakerMemo, options: Any) -> None:
        """Change what the recogniser lets change.

        Raises:
            ValueError: an option is fixed at the start, as ``speakers`` is.
        """
        if options.speakers != memo.speakers:
            raise ValueError("speakers: fixed at the start of a stream; open another one to change it")
        self.task.configure(memo.recognition, self._own(options))

    def wants(self, memo: SpeakerMemo) -> int | None:
        """What the recogniser wants."""
        return self.task.wants(memo.recognition)

    def launch(self, inputs: Chunk, state: HeardState, rows: Tensor, memos: list[SpeakerMemo]) -> SpeakerStep:
        """Launch the recogniser's step, and keep the samples."""
        begin = staged([*(memo.samples for memo in memos), *[0] * (len(rows) - len(memos))], rows.device)
        entry = (begin[:, None] + torch.arange(inputs.data.shape[1], device=rows.device)) % self.kept
        place = rows[:, None], entry
        state.heard[place] = torch.where(inputs.mask, inputs.data, state.heard[place])
        received = Fetched(inputs.length)
        recognition = self.task.launch(inputs, state.recognition, rows, [memo.recognition for memo in memos])
        return SpeakerStep(memos, state, rows, received, recognition)

    def read(self, pending: SpeakerStep) -> list[Turn]:
        """Read the recogniser's step, and label its words."""
        turns = []
        (received,) = pending.received.wait()
        for i, (memo, turn) in enumerate(zip(pending.memos, self.task.read(pending.recognition), strict=True)):
            memo.samples += int(received[i])
            if memo.speakers and turn.error is None:
                events = list[Event]()
                try:
                    for event in turn.events:
                        events.append(self._labelled(event, memo, pending.state.heard, pending.rows[i]))
                    turn = turn._replace(events=events)
                except Exception as error:
                    turn = Turn(events, True, error)
            turns.append(turn)
        return turns

    def interrupt(self, memo: SpeakerMemo, played_s: float | None = None) -> list[Event]:
        """What the recogniser says to it."""
        return self.task.interrupt(memo.recognition, played_s)

    def end(self, memo: SpeakerMemo) -> None:
        """Release what the recogniser holds for the stream."""
        self.task.end(memo.recognition)

    def _labelled(self, event: Event, memo: SpeakerMemo, heard: Tensor, row: Tensor) -> Event:
        """The event with its speaker."""
        if isinstance(event, Word):
            earliest = max(memo.samples - self.kept, 0)
            begin, end = self.labels.stretch((event.start + event.end) / 2, earliest, memo.samples)

            def samples() -> Any:
                entries = torch.arange(begin, end, device=heard.device) % self.kept
                return heard[row, entries].cpu().numpy()

            speaker = self.labels.speaker(memo.voices, end, samples)
            memo.spoken.append((speaker, event.end - event.start))
            return dataclasses.replace(event, speaker=speaker)
        if isinstance(event, Final):
            spoken, memo.spoken = memo.spoken, []
            return dataclasses.replace(event, speaker=main_speaker(spoken))
        return event

    def _own(self, options: Any) -> Any:
        """The recogniser's options among those of a stream."""
        kind = self.task.Options
        return kind(**{one.name: getattr(options, one.name) for one in dataclasses.fields(kind)})

    def _relaxed(self, options: Any) -> Sequence[Any]:
        """See `loquent.speech.runtime.task.Relaxing`."""
        assert isinstance(self.task, Relaxing)
        larger = self.task.relaxed(self._own(options))
        return [self.Options(**vars(one), speakers=options.speakers) for one in larger]
