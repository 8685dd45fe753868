"""Channels that are streams of their own, in the native protocol."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from loquent.speech.net.client import ProtocolError, ServerBusy, connect
from loquent.speech.runtime.channels import channel_of
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Marker, Word


def noise(samples: int) -> np.ndarray:
    audio = np.random.default_rng(0).integers(-20_000, 20_000, (samples, 2), np.int16)
    return audio // np.array([1, 30], np.int16)


async def heard(url: str, audio: np.ndarray) -> list[Event]:
    async with connect(url, sample_rate=16_000, channels=audio.shape[1], multichannel=True) as stream:
        for packet in np.array_split(audio, 7):
            await stream.send(packet)
        await stream.marker("end")
        return await stream.finish()


def words(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def test_each_channel_is_a_stream(band_energy: ModuleType, start_server: Any) -> None:
    server, audio = start_server(capacity=2), noise(16_000)
    events = asyncio.run(heard(f"ws://127.0.0.1:{server.port}", audio))
    assert sum(isinstance(event, Marker) for event in events) == 1
    for channel in range(2):
        session = Engine(band_energy.BandEnergy()).open()
        alone = session.push(audio[:, channel]) + session.finish()
        assert words(alone) == words([event for event in events if channel_of(event) == channel]) != []
    assert server.service.models["band"].active == 0


@pytest.mark.parametrize("most", [{"capacity": 2}, {"max_streams": 2}])
def test_each_channel_needs_a_slot(start_server: Any, most: dict[str, int]) -> None:
    server = start_server(**most)
    with pytest.raises(ServerBusy):
        asyncio.run(heard(f"ws://127.0.0.1:{server.port}", np.zeros((10, 3), np.int16)))
    assert server.service.models["band"].active == 0


def test_a_model_that_takes_text_has_no_channels(start_server: Any, tones: ModuleType) -> None:
    server = start_server(tones.Tones())
    with pytest.raises(ProtocolError, match="multichannel"):
        asyncio.run(heard(f"ws://127.0.0.1:{server.port}", np.zeros((10, 2), np.int16)))
