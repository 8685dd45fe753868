"""Names that clients have for models and voices: the server's own, aliases, and those of other services."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from loquent.speech.net.client import ProtocolError
from loquent.speech.net.client import connect as connect_native
from loquent.speech.net.models import DEEPGRAM_MODELS, OPENAI_MODELS, Models, UnknownModel, models_of
from loquent.speech.runtime.engine import Engine

ALIASES = {"nova-2": "other", "gpt-4o-transcribe": "other", "mine": "other"}


@pytest.fixture
def engines(band_energy: ModuleType) -> dict[str, Engine]:
    return {"first": Engine(band_energy.BandEnergy(), 4), "other": Engine(band_energy.BandEnergy(), 4)}


@pytest.fixture
def server(start_server: Any, engines: dict[str, Engine]) -> Any:
    return start_server(engines=engines, aliases=ALIASES)


def test_a_name_is_the_servers_own_then_an_alias_then_another_services(engines: dict[str, Engine]) -> None:
    models = models_of(engines, aliases=ALIASES)
    assert [models.named(name) for name in ("first", "other", "mine", None)] == ["first", "other", "other", "first"]
    assert [models.named(name, DEEPGRAM_MODELS) for name in ("nova-2", "nova-3")] == ["other", "first"]
    assert models.named("gpt-4o-mini-transcribe", OPENAI_MODELS) == "first"
    with pytest.raises(UnknownModel, match="this server has first, other, nova-2"):
        models.named("nova-3", OPENAI_MODELS)
    with pytest.raises(UnknownModel):
        Models({}).named(None)
    few = models.only(lambda model: model is models["first"])
    assert (list(few), few.aliases) == (["first"], {})


@pytest.mark.parametrize(("alias", "name"), [("first", "other"), ("", "other"), ("x", "nothing")])
def test_an_alias_is_a_new_name_of_a_model_there_is(engines: dict[str, Engine], alias: str, name: str) -> None:
    with pytest.raises(ValueError, match="alias"):
        models_of(engines, aliases={alias: name})


def test_the_native_protocol_takes_aliases_and_no_other_names(server: Any) -> None:
    async def opened(model: str | None) -> None:
        async with connect_native(f"ws://127.0.0.1:{server.port}", sample_rate=16_000, model=model) as stream:
            await stream.finish()

    asyncio.run(opened("mine"))
    asyncio.run(opened(None))
    with pytest.raises(ProtocolError, match="no model 'nova-3'"):
        asyncio.run(opened("nova-3"))
    assert used(server) == {"other": 1, "first": 1}


def test_other_protocols_take_aliases_and_the_names_of_their_services(server: Any) -> None:
    here = f"ws://127.0.0.1:{server.port}"
    for model in ("nova-2", "nova-3"):
        with connect(f"{here}/v1/listen?encoding=linear16&sample_rate=16000&model={model}") as socket:
            socket.send('{"type": "CloseStream"}')
            metadata = json.loads([*socket][-1])
            (info,) = metadata["model_info"].values()
            assert info["name"] == {"nova-2": "other", "nova-3": "first"}[model]
    with connect(f"{here}/") as socket:
        socket.send('{"config": {"model": "mine"}}')
        socket.send('{"eof": 1}')
        assert "text" in json.loads([*socket][-1])
    for model in ("gpt-4o-transcribe", "whisper-1"):
        with connect(f"{here}/v1/realtime?intent=transcription&model={model}") as socket:
            socket.send('{"type": "input_audio_buffer.append", "audio": "AAAAAA=="}')
            socket.send('{"type": "input_audio_buffer.commit"}')
            while json.loads(socket.recv(30))["type"] != "input_audio_buffer.committed":
                pass
    assert used(server) == {"other": 3, "first": 2}


def test_lists_of_models_have_aliases(server: Any) -> None:
    here = f"http://127.0.0.1:{server.port}/v1/models"
    assert [one["id"] for one in httpx.get(here).json()["data"]] == ["first", "other", *ALIASES]
    assert httpx.get(f"{here}/mine").json()["id"] == "mine"
    assert httpx.get(f"{here}/nova-3").status_code == 404


def test_voices_have_aliases(start_server: Any, tones: ModuleType) -> None:
    @dataclass(frozen=True)
    class Options(tones.ToneOptions):  # type: ignore[name-defined]
        voice: str = "usual"

    class Voice(tones.Tones):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.Options = Options
            self.asked: list[str] = []

        def start(self, options: Any) -> Any:
            if options.voice not in ("usual", "anna"):
                raise ValueError(f"voice: there is no {options.voice!r}")
            self.asked.append(options.voice)
            return super().start(options)

    voice = Voice()
    server = start_server(engines={"say": Engine(voice)}, aliases={"tts-1": "say"}, voice_aliases={"nova": "anna"})

    async def spoken(name: str) -> None:
        async with connect_native(f"ws://127.0.0.1:{server.port}", model="tts-1", voice=name) as stream:
            await stream.write("hello")
            await stream.finish()

    for name in ("nova", "alloy"):
        body = {"input": "hello", "voice": name, "model": "tts-1", "response_format": "pcm"}
        assert httpx.post(f"http://127.0.0.1:{server.port}/v1/audio/speech", json=body).content
    asyncio.run(spoken("nova"))
    assert voice.asked == ["anna", "usual", "anna"]


def used(server: Any) -> dict[str, int]:
    """Streams opened so far, by the model's own name."""
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    counts = [line.split() for line in text.splitlines() if line.startswith("loquent_sessions_total")]
    return {name.split('"')[1]: int(float(count)) for name, count in counts}
