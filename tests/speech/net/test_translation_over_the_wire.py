"""Translation through a real server: of text, and of speech that a stream asks to have translated."""

import asyncio

import numpy as np
import pytest

from loquent.speech.bilingual import RECOGNITION, TRANSLATION, Bilingual
from loquent.speech.net.client import ProtocolError, ServerBusy, connect
from loquent.speech.net.limits import Limits
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.pipeline import Pipeline

TEXT = "bado fige lomo. Buta gamo neti"


@pytest.fixture
def task(toy):
    from loquent.translate.task import TranslationTask

    return TranslationTask(toy.Mirror())


@pytest.fixture
def start(start_server, band_energy, task):
    """Function that starts a server of a recogniser and a translator."""

    def started(capacity=4, limits=None):
        engines = {"hear": Engine(band_energy.BandEnergy(), 4), "en-es": Engine(task, capacity)}
        return start_server(engines=engines, translators={("en", "es"): engines["en-es"]}, limits=limits)

    return started


def stream(server, packets, **options):
    async def main():
        async with connect(f"ws://127.0.0.1:{server.port}", **options) as stream:
            for packet in packets:
                await (stream.write if isinstance(packet, str) else stream.send)(packet)
            return stream.ready, await stream.finish()

    return asyncio.run(main())


def unnamed(events, stage=""):
    return [event.to_dict() | {"stream": ""} for event in events if event.stage == stage]


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_text_over_the_wire_is_translated_as_locally(start, task, cut):
    options = {"policy": "wait-k", "k": 2, "drafts": True, "glossary": {"fige": "FICHA"}, "keep": ["lomo"]}
    pieces = [TEXT[at : at + cut] for at in range(0, len(TEXT), cut)]
    ready, events = stream(start(), pieces, model="en-es", **options)
    assert (ready["takes"], ready["gives"]) == ({"kind": "text"}, {"kind": "text"})
    session = Engine(task).open(**options)
    assert unnamed(events) == unnamed(session.push(TEXT) + session.finish())
    assert any(event.type == "translation" for event in events)


def test_speech_is_translated_behind_its_recogniser(start, band_energy, task):
    audio = np.random.default_rng(0).integers(-20_000, 20_000, 40_000, np.int16)
    _, events = stream(start(), np.array_split(audio, 5), model="hear", translate_to="es", k=2, chunk_ms=200)
    engines = {RECOGNITION: Engine(band_energy.BandEnergy()), TRANSLATION: Engine(task)}
    local = Pipeline.open(engines, k=2, chunk_ms=200)
    expected = local.push(audio) + local.finish()
    for stage in engines:
        assert unnamed(events, stage) == unnamed(expected, stage) != []
    bilingual = Bilingual()
    done = [segment for event in events for segment in bilingual.add(event)] + bilingual.finish()
    assert done
    assert all(one.text.strip() == one.translation for one in done)


def test_without_the_option_speech_is_not_translated(start):
    _, events = stream(start(), [np.ones(8000, np.int16)], model="hear")
    assert {event.stage for event in events} == {""}


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        ("hear", {"translate_to": "fr"}, "translate_to: this model does not translate to 'fr'; it translates en to es"),
        ("hear", {"translate_to": 7}, "does not translate to 7"),
        ("hear", {"translate_to": "es", "language": "de"}, "does not translate to 'es' from 'de'"),
        ("hear", {"translate_to": "es", "k": 0}, "k: expected a number from 1"),
        ("en-es", {"translate_to": "es"}, "does not translate to 'es'; it translates nothing"),
        ("en-es", {"policy": "psychic"}, "policy: expected one of wait-k"),
    ],
)
def test_what_is_wrong_is_refused(start, model, options, reason):
    with pytest.raises(ProtocolError, match=reason) as refusal:
        stream(start(), [], model=model, **options)
    assert refusal.value.code == "bad_options"


def test_a_translation_takes_a_place_of_both(start):
    server = start(capacity=1)

    async def main():
        url = f"ws://127.0.0.1:{server.port}"
        async with connect(url, model="hear", translate_to="es"):
            with pytest.raises(ServerBusy):
                async with connect(url, model="en-es"):
                    pass
            async with connect(url, model="hear"):
                pass

    asyncio.run(main())


def test_text_is_limited(start):
    with pytest.raises(ProtocolError) as refusal:
        stream(start(limits=Limits(max_text_bytes=200)), ["x" * 300], model="en-es")
    assert refusal.value.code == "too_large"
