"""A stream that waits for its client, as a value and as bytes. They are read as any foreign input is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch

from loquent.speech.net.messages import Start
from loquent.speech.net.protocol import ServerProtocol
from loquent.speech.runtime.events import Event, Speech
from loquent.speech.runtime.snapshot import Header, counted, flagged, foreign, pack, timed, unpack

LONGEST_START = 2**24  # bytes: more than any server lets a client send


@dataclass(frozen=True)
class Record:
    """What it takes to go on with a stream.

    key:       name of the key that it was opened with; "" without keys.
    model:     by the name that clients ask for.
    start:     what the client asked for, but for its key.
    ready:     what it was answered.
    position:  of the input that the snapshot covers, in samples or characters.
    messages:  of its client, other than input, that the snapshot covers.
    finished:  whether the end of the input is among them.
    snapshot:  of the stream; None: it is over.
    events:    that the client has not confirmed.
    received:  by source, how many events it has confirmed.
    spoken_s:  seconds of speech in these.
    """

    key: str
    model: str
    start: Start
    ready: Mapping[str, Any]
    position: int
    messages: int
    finished: bool
    snapshot: bytes | None
    events: tuple[Event, ...]
    received: Mapping[str, int]
    spoken_s: float

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, about."""
        samples = sum(event.samples.nbytes for event in self.events if isinstance(event, Speech))
        return len(self.snapshot or b"") + samples + 512 * len(self.events) + 4096

    def to_bytes(self) -> bytes:
        """The length of a head (8 bytes, little-endian), the head in the format of snapshots, and the snapshot.

        The snapshot has a checksum of its own and may be large: no other is made of it.
        """
        tensors = {
            f"speech.{at}": torch.from_numpy(np.array(event.samples, np.float32))
            for at, event in enumerate(self.events)
            if isinstance(event, Speech)
        }
        plain = ("key", "model", "position", "messages", "finished", "spoken_s")
        header: dict[str, Any] = {name: getattr(self, name) for name in plain}
        header |= {"ready": dict(self.ready), "received": dict(self.received), "over": self.snapshot is None}
        header["start"] = self.start.to_dict()
        header["events"] = [event.to_dict() for event in self.events]
        head = pack(safetensors.torch.save(tensors, {"session": json.dumps(header)}))
        return b"".join([len(head).to_bytes(8, "little"), head, self.snapshot or b""])

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Inverse of `to_bytes`.

        Raises:
            ValueError: it is none, one of another version of loquent, or damaged.
        """
        end = 8 + int.from_bytes(data[:8], "little")
        header, tensors = unpack(data[8:end])
        with foreign("a session that was kept"):
            received = header.mapping("received")
            return cls(
                key=_string(header, "key"),
                model=_string(header, "model"),
                start=_start(header.mapping("start")),
                ready=header.mapping("ready"),
                position=header.count("position"),
                messages=header.count("messages"),
                finished=flagged(header, "finished"),
                snapshot=None if flagged(header, "over") else data[end:],
                events=tuple(_event(values, tensors.get(f"speech.{at}")) for at, values in enumerate(header["events"])),
                received={stage: counted(received, stage) for stage in received},
                spoken_s=timed(header.get("spoken_s"), "spoken_s"),
            )


def _string(header: Header, name: str) -> str:
    value = header.get(name)
    if not isinstance(value, str):
        raise ValueError(f"saved '{name}' has to be a text")
    return value


def _start(values: dict[str, Any]) -> Start:
    (action,) = ServerProtocol(max_text_bytes=LONGEST_START).receive_text(json.dumps(values))
    if not isinstance(action, Start):
        raise ValueError("saved 'start' is none that a client could send")
    return action


def _event(values: dict[str, Any], samples: torch.Tensor | None) -> Event:
    if samples is not None and (samples.dtype != torch.float32 or samples.ndim != 1):
        raise ValueError("saved speech has to be float32 samples (N,)")
    counted(values, "sequence")
    return Event.from_dict(values if samples is None else values | {"samples": samples.numpy()})
