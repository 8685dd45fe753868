"""Streams side by side: every channel of the audio has its own, as where each speaker has a microphone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Self

from loquent.speech.audio.files import to_mono_float32
from loquent.speech.runtime.events import Event, Marker
from loquent.speech.runtime.inbox import Inbox
from loquent.speech.runtime.snapshot import Unpacked, counted, pack_parts, parts_of, unpack
from loquent.speech.runtime.stream import Stream, StreamClosed

MOST = 64  # channels

_names = itertools.count(1)


class Channels(Stream):
    """One stream for each channel. What a channel says is what a stream that hears it alone would say.

    The events of channel 0 have the id ``STREAM/0``, those of channel 1 ``STREAM/1`` and so on. A marker comes out once
    every channel has reached it. When a channel fails, the others go on.

    Args:
        streams: by channel; all take audio at the same rate, of one channel.
        stream: id of the whole.

    Attributes:
        streams: by channel.
    """

    def __init__(self, streams: tuple[Stream, ...], stream: str) -> None:
        self.streams, self.stream = streams, stream
        self.takes, self.gives = streams[0].takes, streams[0].gives
        self._reached = [0] * len(streams)  # markers, by channel

    @classmethod
    def open(cls, channels: int, opened: Callable[[str], Stream]) -> Self:
        """Start a stream for each channel; if one cannot be started, none is.

        Args:
            channels: how many.
            opened: starts a stream of one channel with the given id.

        Raises:
            ValueError: there are too many.
        """
        if not 1 <= channels <= MOST:
            raise ValueError(f"channels: expected from 1 to {MOST}, got {channels}")
        name, streams = f"channels-{next(_names)}", list[Stream]()
        try:
            for channel in range(channels):
                streams.append(opened(f"{name}/{channel}"))
        except Exception:
            for stream in streams:
                stream.close()
            raise
        return cls(tuple(streams), name)

    @classmethod
    def restore(cls, snapshot: bytes | Unpacked, restored: Callable[[bytes], Stream]) -> Self:
        """Continue from `snapshot`; ``restored`` continues a stream of one channel, such as `Engine.restore`.

        Raises:
            ValueError: not a snapshot of channels, or a damaged one; nothing is changed.
        """
        header, tensors = unpack(snapshot)
        reached = header.mapping("reached")
        names = [str(channel) for channel in range(len(reached))]
        if not 1 <= len(names) <= MOST:
            raise ValueError(f"not a snapshot of channels: it has {len(names)} of them")
        parts = parts_of(tensors, names, "a snapshot of channels")
        streams: list[Stream] = []
        try:
            streams.extend(map(restored, parts.values()))
            channels = cls(tuple(streams), header.text("stream"))
            channels._reached = [counted(reached, name) for name in names]
        except Exception:
            for stream in streams:
                stream.close()
            raise
        return channels

    @property
    def inbox(self) -> Inbox:  # type: ignore[override]
        """Where the input of the channel waits that is furthest behind, of those that have not failed."""
        going_on = [one for one in self.streams if not one.sessions[0].done]
        return max(going_on or self.streams, key=lambda one: one.inbox.pending).inbox

    @property
    def count(self) -> int:
        """One for each channel."""
        return len(self.streams)

    @property
    def sessions(self) -> tuple[Any, ...]:
        """Those of all channels."""
        return tuple(session for one in self.streams for session in one.sessions)

    @property
    def done(self) -> bool:
        """Whether every channel has made its last step."""
        return all(one.done for one in self.streams)

    @property
    def waiting_markers(self) -> int:
        """Markers that some channel has not reached."""
        return max(one.waiting_markers for one in self.streams)

    def run(self) -> list[Event]:
        """See `Stream.run`."""
        return self._told([event for one in self.streams for event in one.run()])

    def feed(self, packet: Any) -> None:
        """Buffer samples (samples, channels), int16 or float32.

        Raises:
            StreamClosed, ValueError: as `Stream.push`; no channel has got any of the packet.
        """
        count = len(self.streams)
        shape = getattr(packet, "shape", None)
        if shape is None or len(shape) != 2 or shape[1] != count:
            got = type(packet).__name__ if shape is None else tuple(shape)
            raise ValueError(f"expected samples of shape (samples, {count}), got {got}")
        if not (listening := self._listening()):
            raise StreamClosed(f"stream '{self.stream}' has ended; open another one for more input")
        samples = [to_mono_float32(packet[:, channel].copy()) for channel in range(count)]
        for one, part in zip(self.streams, samples, strict=True):
            if one in listening:
                one.feed(part)

    def feed_flush(self) -> None:
        """See `Stream.feed_flush`."""
        for one in self._listening():
            one.feed_flush()

    def end(self) -> None:
        """See `Stream.end`."""
        for one in self._listening():
            one.end()

    def drain(self) -> list[Event]:
        """See `Stream.drain`."""
        return self._told([event for one in self.streams for event in one.drain()])

    def marker(self, id: str) -> list[Event]:
        """See `Stream.marker`."""
        if not (listening := self._listening()):
            raise StreamClosed(f"stream '{self.stream}' has ended; it reaches no more markers")
        for channel, one in enumerate(self.streams):
            self._reached[channel] += one not in listening
        return self._told([event for one in listening for event in one.marker(id)])

    def configure(self, **options: Any) -> None:
        """See `Stream.configure`; it is for all channels."""
        for one in self._listening():
            one.configure(**options)

    def interrupt(self, played_s: float | None = None) -> list[Event]:
        """See `Stream.interrupt`."""
        return self._told([event for one in self.streams for event in one.interrupt(played_s)])

    def capture(self) -> Callable[[], bytes]:
        """See `Stream.capture`. A channel that has ended cannot be saved."""
        parts = {str(channel): one.capture() for channel, one in enumerate(self.streams)}
        return pack_parts({"stream": self.stream, "reached": dict(zip(parts, self._reached, strict=True))}, parts)

    def close(self) -> None:
        """See `Stream.close`."""
        for one in self.streams:
            one.close()

    def _listening(self) -> list[Stream]:
        """The channels that take input: none that has ended, or has failed."""
        return [one for one in self.streams if not (one.inbox.ended or one.sessions[0].done)]

    def _told(self, events: list[Event]) -> list[Event]:
        """The events but for markers that another channel has not reached yet."""
        return [event for event in events if not isinstance(event, Marker) or self._last_to_reach(event)]

    def _last_to_reach(self, marker: Marker) -> bool:
        channel = channel_of(marker)
        self._reached[channel] += 1
        return self._reached[channel] == min(self._reached)


def channel_of(event: Event) -> int:
    """The channel that an event of `Channels` is about."""
    return int(event.stream.rpartition("/")[2])


def source_of(event: Event) -> str:
    """Whose events are numbered together with this one: its channel's, if it is one of `Channels`, and its stage's."""
    _, channels, channel = event.stream.rpartition("/")
    return "/".join(part for part in (channel if channels else "", event.stage) if part)
