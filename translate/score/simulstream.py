"""Logs of simulstream 1.0: what each step of a stream of speech added and took back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from os import PathLike
from typing import Any

from loquent.translate.score.clock import VirtualClock
from loquent.translate.score.instance import Instance, TargetUnit, target_units
from loquent.translate.score.json_lines import number, read_json_lines, text, texts, write_json_lines
from loquent.translate.score.stability import common_prefix

Detokenise = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class StreamStep:
    """One step.

    processed: seconds of audio from the beginning to the end of what the step was given.
    computed:  seconds that it took.
    generated: tokens that it added.
    deleted:   tokens that it took back before, the last ones of the text so far.
    """

    processed: float
    computed: float
    generated: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


@dataclass
class StreamLog:
    """The steps of one recording; ``id`` is that of its connection, which may have brought other recordings before."""

    wav_name: str
    steps: list[StreamStep] = field(default_factory=list)
    id: int | str = 0

    @staticmethod
    def of(instance: Instance, wav_name: str) -> StreamLog:
        """The log of a system that took nothing back; without elapsed times, it took no time either.

        Raises:
            ValueError: the source is a text.
        """
        if instance.unit == "words":
            raise ValueError("unit: simulstream's logs are of speech, in ms or s, and the delays are words")
        second = 1000 if instance.unit == "ms" else 1
        words = target_units(instance.prediction, instance.target_unit)
        times = instance.delays if instance.elapsed is None else instance.elapsed
        log, done = StreamLog(wav_name), 0.0
        for delay, chunk in groupby(zip(words, instance.delays, times, strict=True), key=lambda word: word[1]):
            generated, _, elapsed = zip(*chunk, strict=True)
            cost = max(0.0, max(elapsed) - max(done, delay))
            done = max(done, delay) + cost
            log.steps.append(StreamStep(delay / second, cost / second, generated))
        if not log.steps or log.steps[-1].processed < instance.source_length / second:
            log.steps.append(StreamStep(instance.source_length / second, 0.0))
        return log

    def instance(self, detokenise: Detokenise = " ".join, target_unit: TargetUnit = "word") -> Instance:
        """The text at the end, and when each unit of it was last touched, in s.

        A step begins when its audio is there and the step before has ended; simulstream's own reader leaves out the
        latter. Units of deleted tokens count as erased, as there.

        Args:
            detokenise: text of tokens: ``" ".join`` if they are words, `pieces_to_text` if they are SentencePiece's.
            target_unit: what counts.

        Raises:
            ValueError: there are no steps.
        """
        if not self.steps:
            raise ValueError(f"{self.wav_name} has no steps, so its length is not known")
        tokens: list[str] = []
        units: list[str] = []
        delays: list[float] = []
        elapsed: list[float] = []
        clock, erased = VirtualClock(), 0

        def become(step: StreamStep) -> None:
            new = target_units(detokenise(tokens), target_unit)
            kept = common_prefix(units, new)
            units[kept:] = new[kept:]
            delays[kept:] = [step.processed] * (len(new) - kept)
            elapsed[kept:] = [clock.now] * (len(new) - kept)

        for step in self.steps:
            clock.step(step.processed, step.computed)
            if step.deleted:
                erased += len(target_units(detokenise(step.deleted), target_unit))
                del tokens[-len(step.deleted) :]
                become(step)
            if step.generated:
                tokens += step.generated
                become(step)
        return Instance(
            detokenise(tokens),
            tuple(delays),
            self.steps[-1].processed,
            elapsed=tuple(elapsed),
            target_unit=target_unit,
            erased=erased,
            source=self.wav_name,
        )


def pieces_to_text(pieces: Sequence[str]) -> str:
    """Text of SentencePiece's pieces."""
    return "".join(pieces).replace("▁", " ").strip()


def read_simulstream(path: str | PathLike[str]) -> list[StreamLog]:
    """Read the log of metrics of simulstream's server or inference; other metadata than ``wav_name`` is passed over.

    Raises:
        LogError: the file is not such a log.
    """
    logs: list[StreamLog] = []
    current: dict[int | str, tuple[StreamLog, list[str]]] = {}  # by connection, with the tokens so far

    def take(values: dict[str, Any]) -> None:
        if "id" not in values:
            return  # how long the model took to load
        id = values["id"]
        if not isinstance(id, int | str):
            raise ValueError(f"id: expected a number or a string, got {id!r}")
        if "metadata" in values:
            if not isinstance(values["metadata"], dict):
                raise ValueError(f"metadata: expected an object, got {values['metadata']!r}")
            logs.append(StreamLog(text(values["metadata"], "wav_name"), id=id))
            current[id] = logs[-1], []
        elif id not in current:
            raise ValueError(f'id {id!r} has no recording: a line with its "metadata" comes first')
        else:
            log, tokens = current[id]
            log.steps.append(_step(values, tokens, log.steps[-1].processed if log.steps else 0.0))

    read_json_lines(path, take)
    return logs


def write_simulstream(path: str | PathLike[str], logs: Iterable[StreamLog]) -> None:
    """Write what simulstream, OmniSTEval and `read_simulstream` read: one recording after the other."""
    lines: list[dict[str, Any]] = []
    for log in logs:
        lines.append({"id": log.id, "metadata": {"wav_name": log.wav_name}})
        lines += [
            {
                "id": log.id,
                "total_audio_processed": step.processed,
                "computation_time": step.computed,
                "generated_tokens": step.generated,
                "deleted_tokens": step.deleted,
            }
            for step in log.steps
        ]
    write_json_lines(path, lines)


def _step(values: dict[str, Any], tokens: list[str], processed: float) -> StreamStep:
    """A line as a step; updates the tokens so far."""
    step = StreamStep(
        number(values, "total_audio_processed"),
        number(values, "computation_time"),
        texts(values, "generated_tokens"),
        texts(values, "deleted_tokens"),
    )
    if not processed <= step.processed < math.inf:
        raise ValueError(f"total_audio_processed: expected at least {processed}, as before, got {step.processed}")
    if not 0 <= step.computed < math.inf:
        raise ValueError(f"computation_time: expected 0 or more, got {step.computed}")
    kept = len(tokens) - len(step.deleted)
    if kept < 0 or tuple(tokens[kept:]) != step.deleted:
        raise ValueError(
            f"deleted_tokens: expected the last tokens so far, {tokens[max(0, kept) :]}, got {list(step.deleted)}"
        )
    tokens[kept:] = step.generated
    return step
