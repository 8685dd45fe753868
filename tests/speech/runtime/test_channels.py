"""Streams side by side: each channel is heard as if it were alone, whatever the packets and the other channels."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import numpy as np
import pytest

from loquent.speech.runtime.channels import Channels, channel_of
from loquent.speech.runtime.engine import Engine, EngineFull
from loquent.speech.runtime.events import Event, Marker, Word
from loquent.speech.runtime.stream import StreamClosed


def noise(samples: int, channels: int) -> np.ndarray:
    loudness = np.random.default_rng(1).uniform(0, 1, (samples // 800 + 1, channels)).repeat(800, 0)[:samples]
    return (np.random.default_rng(0).uniform(-1, 1, (samples, channels)) * loudness * 20_000).astype(np.int16)


def opened(engine: Engine, channels: int, rate: int = 16_000) -> Channels:
    return Channels.open(channels, lambda name: engine.open(sample_rate=rate, stream=name))


def of_channel(events: list[Event], channel: int) -> list[Event]:
    return [dataclasses.replace(event, stream="") for event in events if channel_of(event) == channel]


def words(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def alone(band_energy: ModuleType, audio: np.ndarray, rate: int = 16_000) -> list[Event]:
    session = Engine(band_energy.BandEnergy()).open(sample_rate=rate)
    return [dataclasses.replace(event, stream="") for event in session.push(audio) + session.finish()]


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("packet", [1, 37, 5000])
def test_a_channel_is_heard_as_if_alone(band_energy: ModuleType, rate: int, packet: int) -> None:
    audio = noise(8000 if packet > 1 else 400, 3)
    stream = opened(Engine(band_energy.BandEnergy(), 3), 3, rate)
    events = [event for at in range(0, len(audio), packet) for event in stream.push(audio[at : at + packet])]
    events += stream.finish()
    for channel in range(3):
        assert of_channel(events, channel) == alone(band_energy, audio[:, channel], rate)
    assert stream.done
    with pytest.raises(StreamClosed):
        stream.push(audio)


def test_a_snapshot_goes_on_elsewhere(band_energy: ModuleType) -> None:
    audio = noise(9000, 2)
    first = opened(Engine(band_energy.BandEnergy(), 2), 2)
    events = first.push(audio[:3333])
    assert first.marker("early") == []
    other = Engine(band_energy.BandEnergy(), 2)
    second = Channels.restore(first.snapshot(), other.restore)
    events += second.push(audio[3333:]) + second.finish()
    assert [event.id for event in events if isinstance(event, Marker)] == ["early"]
    said = [event for event in events if not isinstance(event, Marker)]
    for channel in range(2):
        assert words(of_channel(said, channel)) == words(alone(band_energy, audio[:, channel])) != []
    with pytest.raises(ValueError, match="reached"):
        Channels.restore(Engine(band_energy.BandEnergy()).open().snapshot(), other.restore)
    assert other.active == 0


def test_a_marker_comes_when_every_channel_has_reached_it(band_energy: ModuleType) -> None:
    stream = opened(Engine(band_energy.BandEnergy(), 2), 2)
    stream.push(noise(1000, 2))
    assert stream.marker("a") == stream.marker("a") == []
    assert stream.waiting_markers == 2
    events = stream.push(noise(3000, 2))
    assert [event.id for event in events if isinstance(event, Marker)] == ["a", "a"]


def test_a_wrong_packet_reaches_no_channel(band_energy: ModuleType) -> None:
    stream = opened(Engine(band_energy.BandEnergy(), 2), 2)
    spoilt = np.zeros((100, 2), np.float32)
    spoilt[50, 1] = np.nan
    for packet, why in (
        (noise(100, 3), r"\(samples, 2\)"),
        (noise(100, 2)[:, 0], "2"),
        (b"\0" * 4, "bytes"),
        (spoilt, "nan"),
    ):
        with pytest.raises(ValueError, match=why):
            stream.feed(packet)
    assert [one.inbox.received for one in stream.streams] == [0, 0]


def test_without_a_slot_for_each_none_is_taken(band_energy: ModuleType) -> None:
    engine = Engine(band_energy.BandEnergy(), 2)
    with pytest.raises(EngineFull):
        opened(engine, 3)
    assert engine.active == 0
    with pytest.raises(ValueError, match="from 1 to 64"):
        opened(engine, 65)


def test_a_channel_that_fails_leaves_the_others(band_energy: ModuleType) -> None:
    engine = Engine(band_energy.BandEnergy(), 2)
    options = [{"fail_at": 5}, {}]
    stream = Channels.open(2, lambda name: engine.open(stream=name, **options[int(name[-1])]))
    audio = noise(8000, 2)
    events = stream.push(audio[:4000]) + stream.push(audio[4000:]) + stream.finish()
    assert of_channel(events, 0)[-1].type == "failure"
    assert of_channel(events, 1) == alone(band_energy, audio[:, 1])


def test_a_channel_that_has_failed_holds_up_no_marker(band_energy: ModuleType) -> None:
    engine = Engine(band_energy.BandEnergy(), 2)
    options = [{}, {"fail_at": 5}]
    stream = Channels.open(2, lambda name: engine.open(stream=name, **options[int(name[-1])]))
    stream.push(noise(3300, 2))
    assert stream.marker("a") == []
    events = stream.push(noise(1600, 2))
    assert [event.id for event in events if isinstance(event, Marker)] == ["a"]
    stream.configure(chunk_ms=50)
    stream.finish()
    with pytest.raises(StreamClosed):
        stream.marker("b")


def test_what_a_failed_channel_has_left_does_not_count_as_waiting(band_energy: ModuleType) -> None:
    engine = Engine(band_energy.BandEnergy(), 2)
    options = [{}, {"fail_at": 5}]
    stream = Channels.open(2, lambda name: engine.open(stream=name, **options[int(name[-1])]))
    stream.push(noise(16_000, 2))
    assert stream.streams[1].inbox.pending > 0.5
    assert stream.inbox is stream.streams[0].inbox
    stream.push(noise(1600, 2))
    assert stream.inbox.received == 17_600
