"""A real browser on the page of a real server, whose models are small and exact."""

from __future__ import annotations

import base64
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.bilingual import RECOGNITION, TRANSLATION, Bilingual
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Final, Word
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.task import Offer, Turn

SAMPLE = Path(__file__).parents[4] / "speech" / "assets" / "sample.flac"


def _driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chromium", Path(__file__).with_name("chromium.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["chromium"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def driver() -> ModuleType:
    """The module `chromium` beside this file."""
    return _driver()


@pytest.fixture(scope="session")
def chromium(driver: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser whose microphone hears the sample recording."""
    if driver.PROGRAM is None:
        pytest.skip("needs chromium (Debian's package of that name)")
    folder = tmp_path_factory.mktemp("chromium")
    sample = read_audio(SAMPLE)
    write_audio(folder / "speech.wav", sample.samples, sample.sample_rate)
    browser = driver.Chromium(folder / "profile", folder / "speech.wav")
    yield browser
    browser.close()


@pytest.fixture
def visit(chromium: Any, driver: ModuleType) -> Iterator[Callable[..., Any]]:
    """Function that opens the page of a server in a window without a past, and waits for what it offers."""
    tabs = []

    def opened(server: Any, **options: Any) -> Any:
        tab = chromium.open(f"http://127.0.0.1:{server.port}/", **options)
        tabs.append(tab)
        driver.wait_until(lambda: tab.evaluate("document.readyState") == "complete")
        tab.evaluate("import('/page/page.js').then(({ready}) => ready)")
        return tab

    yield opened
    for tab in tabs:
        tab.close()


@pytest.fixture(scope="session")
def hearing(band_energy: ModuleType) -> type:
    """A recogniser of loudness that writes it in letters, in English, at two latencies."""

    class Hearing(band_energy.BandEnergy):
        def offer(self) -> Offer:
            return Offer(("en",), (100, 200))

        def read(self, pending: Any) -> list[Turn]:
            return [turn._replace(events=[_in_letters(one) for one in turn.events]) for turn in super().read(pending)]

    return Hearing


def _in_letters(event: Any) -> Any:
    letters = str.maketrans("0123456789/", "abcdefghijk")
    return replace(event, text=event.text.translate(letters)) if isinstance(event, Word | Final) else event


@pytest.fixture(scope="session")
def spanish_voice(tones: ModuleType) -> type:
    """A voice of tones that passes for Spanish."""

    class SpanishVoice(tones.Tones):
        def offer(self) -> Offer:
            return Offer(("es",))

    return SpanishVoice


@pytest.fixture
def polyglot(start_server: Any, hearing: type, spanish_voice: type, toy: ModuleType) -> Callable[..., Any]:
    """Function that starts a server that hears, translates and speaks; ``server.ear`` is the task that hears."""
    from loquent.translate.task import TranslationTask

    def started(**options: Any) -> Any:
        ear = hearing()
        engines = {
            "ear": Engine(ear, 4),
            "en-es": Engine(TranslationTask(toy.Mirror()), 4),
            "voice": Engine(spanish_voice(), 4),
        }
        server = start_server(engines=engines, translators={("en", "es"): engines["en-es"]}, **options)
        server.ear = ear
        return server

    return started


@pytest.fixture
def wave_file(tmp_path: Path) -> Callable[..., bytes]:
    """Function that makes the bytes of a WAV file of noise at 16 kHz."""

    def made(seconds: float, seed: int = 0, loudest: int = 9000) -> bytes:
        samples = np.random.default_rng(seed).integers(-loudest, loudest + 1, int(seconds * 16_000), np.int16)
        write_audio(tmp_path / "made.wav", samples, 16_000)
        return (tmp_path / "made.wav").read_bytes()

    return made


@pytest.fixture
def texts(hearing: type) -> Callable[..., list[str]]:
    """Function that tells what the recogniser writes for some samples, an utterance each."""

    def of(samples: np.ndarray, rate: int) -> list[str]:
        session = Engine(hearing(), 1).open(sample_rate=rate)
        events = session.push(samples) + session.finish()
        return [event.text.strip() for event in events if isinstance(event, Final)]

    return of


@pytest.fixture
def translated(hearing: type, toy: ModuleType) -> Callable[..., list[str]]:
    """Function that tells the translation of what the recogniser writes for some samples, an utterance each."""
    from loquent.translate.task import TranslationTask

    def of(samples: np.ndarray, rate: int) -> list[str]:
        engines = {RECOGNITION: Engine(hearing()), TRANSLATION: Engine(TranslationTask(toy.Mirror()))}
        stream, bilingual = Pipeline.open(engines, sample_rate=rate), Bilingual()
        events = stream.push(samples) + stream.finish()
        done = [segment for event in events for segment in bilingual.add(event)] + bilingual.finish()
        return [segment.translation or "" for segment in done]

    return of


@pytest.fixture
def taped() -> Callable[..., tuple[np.ndarray, int]]:
    """Function that gives the samples and the rate that the page has kept of ``window.kept``, a recording."""

    def of(tab: Any) -> tuple[np.ndarray, int]:
        content = tab.evaluate(
            """(async () => {
              const {tape} = window.kept, samples = tape.slice(0, tape.duration);
              const blob = new Blob([samples]), reader = new FileReader();
              await new Promise(done => { reader.onload = done; reader.readAsDataURL(blob); });
              return [reader.result.split(",")[1], tape.rate];
            })()"""
        )
        return np.frombuffer(base64.b64decode(content[0]), np.int16), content[1]

    return of


RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture
def violations() -> Callable[[Any], list[Any]]:
    """Function that tells what axe-core finds on a page, with the elements concerned."""
    if importlib.util.find_spec("axe_core_python") is None:
        pytest.skip("needs axe-core (pip install axe-core-python)")
    rules = (resources.files("axe_core_python") / "axe.min.js").read_text("utf-8")

    def of(tab: Any) -> list[Any]:
        tab.evaluate(rules)
        found = tab.evaluate(f"axe.run({RULES}).then(({{violations}}) => violations)")
        return [(one["id"], [(node["html"], node["failureSummary"]) for node in one["nodes"]]) for one in found]

    return of


KEEP = "import('/page/captions_mode.js').then(({cards}) => { window.kept = cards.at(-1).recording; })"


@pytest.fixture
def keep() -> Callable[[Any], None]:
    """Function that keeps the newest recording as ``window.kept``."""
    return lambda tab: tab.evaluate(KEEP)
