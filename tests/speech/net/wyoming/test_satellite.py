"""A voice satellite's round with real models: what is spoken is transcribed, answered aloud, and understood again."""

from __future__ import annotations

import asyncio
import re
import socket
from importlib import resources
from typing import Any

import numpy as np
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeVoice

from loquent.speech.audio.files import read_audio, to_pcm16
from loquent.speech.runtime.engine import Engine
from loquent.speech.tasks import load_task

SAID = "Streaming recognition writes each word down while you are still speaking."


async def heard(client: AsyncTcpClient, audio: bytes, rate: int, language: str) -> str:
    form: dict[str, int] = {"rate": rate, "width": 2, "channels": 1}
    await client.write_event(Transcribe(language=language).event())
    await client.write_event(AudioStart(**form).event())
    for at in range(0, len(audio), 2048):
        await client.write_event(AudioChunk(audio=audio[at : at + 2048], **form).event())
    await client.write_event(AudioStop().event())
    while (event := await client.read_event()) is not None:
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text
    raise AssertionError("closed before the transcript")


async def spoken(client: AsyncTcpClient, text: str, voice: str) -> tuple[bytes, int]:
    await client.write_event(Synthesize(text, voice=SynthesizeVoice(name=voice)).event())
    audio, rate = b"", 0
    while (event := await client.read_event()) is not None and not AudioStop.is_type(event.type):
        if AudioStart.is_type(event.type):
            rate = AudioStart.from_event(event).rate
        elif AudioChunk.is_type(event.type):
            audio += AudioChunk.from_event(event).audio
    return audio, rate


def plain(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def test_a_satellite_hears_and_speaks(start_server: Any) -> None:
    recognizer = load_task("recognizer").from_pretrained("tiny.en")
    synthesizer = load_task("synthesizer").from_pretrained("loquent/voice")
    engines = {
        "tiny.en": Engine(recognizer.streaming_task(chunk_ms=1000), 2),
        "loquent/voice": Engine(synthesizer.streaming_task(), 2),
    }
    bound = socket.create_server(("127.0.0.1", 0))
    start_server(engines=engines, wyoming=bound)
    with resources.as_file(resources.files("loquent.speech") / "assets" / "sample.flac") as path:
        sample = to_pcm16(read_audio(path, 16_000).samples[: 4 * 16_000])

    async def round_trip() -> tuple[str, str]:
        async with asyncio.timeout(120), AsyncTcpClient(*bound.getsockname()) as client:
            await client.write_event(Describe().event())
            event = await client.read_event()
            assert event is not None
            info = Info.from_event(event)
            (language,) = info.asr[0].models[0].languages
            (voice,) = info.tts[0].voices
            assert language in voice.languages
            text = await heard(client, np.asarray(sample).tobytes(), 16_000, language)
            audio, rate = await spoken(client, text, voice.name)
            return text, await heard(client, audio, rate, language)

    first, again = asyncio.run(round_trip())
    assert plain(first) == plain(SAID)
    assert plain(again) == plain(SAID)
