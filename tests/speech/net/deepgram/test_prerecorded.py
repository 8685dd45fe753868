"""What Deepgram's client asks of a recording reaches the recogniser, and comes back by channel, utterance and sentence.

With real models it is tried in ``tests/asr/test_foreign_clients.py``.
"""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment

from loquent.speech.net.limits import Limits
from loquent.speech.transcript import Segment, WordTiming

WORDS = [(" Good", 0.1, 0.4), (" morning.", 0.5, 1.0), (" Who", 1.2, 1.4), (" is", 1.4, 1.5), (" there?", 2.4, 2.9)]


class Recognizer:
    """Says the same of every recording, later where it is louder, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.lengths: list[int] = []

    def transcribe(self, audio: np.ndarray, *, progress: Any, **options: Any) -> SimpleNamespace:
        self.asked.append(options)
        self.lengths.append(len(audio))
        later = round(float(np.abs(audio).max()), 1)
        words = tuple(WordTiming(text, start + later, end + later, 0.5) for text, start, end in WORDS)
        text = "".join(word.text for word in words)
        return SimpleNamespace(text=text, language="de", segments=[Segment(0.0, 3.0, text, words)])


def recorded(*loudness: float, seconds: float = 3.0, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    tone = np.sin(np.arange(round(seconds * rate)) * 0.3)
    soundfile.write(file, np.stack([tone * one for one in loudness], 1), rate, format="WAV")
    return file.getvalue()


def client(server: Any) -> DeepgramClient:
    here = f"http://127.0.0.1:{server.port}"
    urls = DeepgramClientEnvironment(base=here, production=here, agent=here, agent_rest=here)
    return DeepgramClient(api_key="any", environment=urls)


def heard(server: Any, recording: bytes, **parameters: Any) -> Any:
    return client(server).listen.v1.media.transcribe_file(request=recording, **parameters)


def test_utterances_end_where_there_are_pauses(start_server: Any) -> None:
    server = start_server(transcribe=Recognizer().transcribe)
    answer = heard(server, recorded(0.1), utterances=True, paragraphs=True)
    assert [one.transcript for one in answer.results.utterances] == ["Good morning. Who is", "there?"]
    first = answer.results.utterances[0]
    assert (first.start, first.end, first.confidence, first.channel) == (0.2, 1.6, 0.5, 0)
    assert [word.punctuated_word for word in first.words] == ["Good", "morning.", "Who", "is"]
    assert [word.word for word in first.words] == ["good", "morning", "who", "is"]
    paragraphs = answer.results.channels[0].alternatives[0].paragraphs
    assert paragraphs.transcript == "Good morning. Who is\n\nthere?"
    assert [[one.text for one in part.sentences] for part in paragraphs.paragraphs] == [
        ["Good morning.", "Who is"],
        ["there?"],
    ]
    whole = heard(server, recorded(0.1), utterances=True, utt_split=1.5)
    assert [one.transcript for one in whole.results.utterances] == ["Good morning. Who is there?"]
    plain = heard(server, recorded(0.1)).results
    assert (plain.utterances, plain.channels[0].alternatives[0].paragraphs) == (None, None)
    assert plain.channels[0].detected_language is None


def test_channels_are_mixed_unless_they_are_asked_for(start_server: Any) -> None:
    recognizer = Recognizer()
    server = start_server(transcribe=recognizer.transcribe)
    stereo = recorded(0.9, 0.1)
    mixed = heard(server, stereo)
    assert (mixed.metadata.channels, len(mixed.results.channels)) == (1, 1)
    apart = heard(server, stereo, multichannel=True, utterances=True)
    assert apart.metadata.channels == 2
    starts = [channel.alternatives[0].words[0].start for channel in apart.results.channels]
    assert starts == [1.0, 0.2]
    assert [one.channel for one in apart.results.utterances] == [1, 0, 1, 0]  # by time
    assert recognizer.lengths == [48_000] * 3
    assert apart.metadata.duration == 3.0


def test_parameters_become_options(start_server: Any, band_energy: ModuleType) -> None:
    @dataclass(frozen=True)
    class Options(band_energy.BandOptions):  # type: ignore[name-defined]
        phrases: tuple[str, ...] = ()

    class Biased(band_energy.BandEnergy):  # type: ignore[name-defined]
        pass

    Biased.Options = Options
    recognizer = Recognizer()
    server = start_server(transcribe=recognizer.transcribe)
    heard(server, recorded(0.1), model="nova-3", language="de-AT", keyterm=["Ada", "Lovelace"], smart_format=True)
    heard(server, recorded(0.1), language="multi")
    told = heard(server, recorded(0.1), language="fr", detect_language=True)
    heard(start_server(Biased(), transcribe=recognizer.transcribe), recorded(0.1), keyterm="Ada")
    words = {"word_timestamps": True}
    assert recognizer.asked == [
        words | {"language": "de", "hotwords": "Ada, Lovelace"},
        words,
        words | {"language": None},
        words | {"phrases": ["Ada"]},
    ]
    assert told.results.channels[0].detected_language == "de"


@pytest.mark.parametrize(
    ("loudness", "seconds", "status", "why"),
    [
        ((0.1,), 4.0, 413, "longer than the 3 s"),
        ((0.1, 0.1), 2.0, 413, "1.5 s of 2 channels"),
        ((0.1,) * 9, 0.1, 400, "9"),
    ],
)
def test_the_length_of_all_channels_is_limited(
    start_server: Any, loudness: tuple[float, ...], seconds: float, status: int, why: str
) -> None:
    server = start_server(transcribe=Recognizer().transcribe, limits=Limits(max_upload_s=3.0))
    answer = httpx.post(url(server, multichannel="true"), content=recorded(*loudness, seconds=seconds))
    assert answer.status_code == status
    assert why in answer.json()["err_msg"]


def test_recordings_of_all_endpoints_share_their_places(start_server: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(audio: np.ndarray, *, progress: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return Recognizer().transcribe(audio, progress=progress)

    server = start_server(transcribe=slow, limits=Limits(max_uploads=1))
    recording = recorded(0.1)
    with ThreadPoolExecutor(1) as pool:
        try:
            answer = pool.submit(httpx.post, url(server), content=recording)
            assert begun.wait(20)
            full = httpx.post(url(server), content=recording)
            assert (full.status_code, full.json()["err_code"]) == (429, "Too Many Requests")
            openai = httpx.post(url(server).replace("listen", "audio/transcriptions"), files={"file": recording})
            assert openai.status_code == 429
        finally:
            go_on.set()
        assert answer.result().status_code == 200
    deadline = time.monotonic() + 20
    while server.service.recordings.uploads.held:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_without_a_recogniser_says_so(start_server: Any) -> None:
    answer = httpx.post(url(start_server()), content=recorded(0.1))
    assert answer.status_code == 404
    assert "live protocol" in answer.json()["err_msg"]


def url(server: Any, **query: str) -> str:
    return str(httpx.URL(f"http://127.0.0.1:{server.port}/v1/listen", params=query))
