"""Clients of OpenAI and of Deepgram, unmodified, send recordings to a server of real models.

OpenAI's validates every answer strictly.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment
from openai import AsyncOpenAI, OpenAI

from loquent.asr import Recognizer
from loquent.speech.audio.files import read_audio
from loquent.speech.net.limits import Limits
from loquent.speech.net.server import Server, create_app
from loquent.speech.runtime.engine import Engine
from loquent.speech.transcript import Transcript

KEY = "sesame"


GREEDY: dict[str, Any] = {"beam_size": 1}


def served(recognizer: Recognizer, name: str, **options: Any) -> Iterator[str]:
    """The address of a server of a model, in a thread."""
    limits = Limits(max_load=1e9, max_lag_s=1e9)  # whatever else this machine does
    transcribe = functools.partial(recognizer.transcribe, **GREEDY)
    engine = Engine(recognizer.streaming_task(chunk_ms=1000), 4)
    app = create_app({name: engine}, limits, transcribe=transcribe, token=KEY, **options)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(app, log_level="error")
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.from_pretrained("tiny.en", threads=1)


@pytest.fixture(scope="module")
def address(recognizer: Recognizer) -> Iterator[str]:
    yield from served(recognizer, "tiny.en", aliases={"dictation": "tiny.en"})


def reached(address: str) -> dict[str, Any]:
    return {
        "api_key": KEY,
        "base_url": f"http://{address}/v1",
        "max_retries": 0,
        "_strict_response_validation": True,
    }


@pytest.fixture(scope="module")
def client(address: str) -> OpenAI:
    return OpenAI(**reached(address))


@pytest.fixture(scope="module")
def deepgram(address: str) -> DeepgramClient:
    return DeepgramClient(**deepgram_at(address))


def deepgram_at(address: str, key: str = KEY) -> dict[str, Any]:
    here, live = f"http://{address}", f"ws://{address}"
    urls = DeepgramClientEnvironment(base=here, production=live, agent=live, agent_rest=here)
    return {"api_key": key, "environment": urls}


def recorded(*channels: np.ndarray, format: str = "FLAC") -> bytes:
    """A file of channels at 16 kHz."""
    file = io.BytesIO()
    soundfile.write(file, np.stack(channels, 1), 16_000, format=format)
    return file.getvalue()


@pytest.fixture(scope="module")
def recording(first_sentence: np.ndarray) -> bytes:
    return recorded(first_sentence)


@pytest.fixture(scope="module")
def expected(recognizer: Recognizer, recording: bytes) -> Transcript:
    samples = read_audio(io.BytesIO(recording)).samples  # as they were rounded
    return recognizer.transcribe(samples, word_timestamps=True, token_logprobs=True, **GREEDY)


# -------------------------------------------------------------------------------------------------------------- OpenAI


@pytest.mark.parametrize("model", ["tiny.en", "dictation", "gpt-4o-transcribe"])
def test_a_model_by_any_of_its_names(client: OpenAI, recording: bytes, expected: Transcript, model: str) -> None:
    answer = client.audio.transcriptions.create(file=recording, model=model)
    assert answer.text == expected.text
    assert answer.usage is not None
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == pytest.approx(expected.duration_s, abs=1e-3)
    assert answer.logprobs is None


def test_models_are_listed_with_their_aliases(client: OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["tiny.en", "dictation"]
    assert client.models.retrieve("dictation").id == "dictation"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("huge")


def test_log_probabilities_of_tokens(client: OpenAI, recording: bytes, expected: Transcript) -> None:
    answer = client.audio.transcriptions.create(file=recording, model="whisper-1", include=["logprobs"])
    told = [token for segment in expected.segments for token in segment.logprobs or ()]
    assert answer.logprobs is not None
    assert [one.token for one in answer.logprobs] == [token.text for token in told]
    assert [one.logprob for one in answer.logprobs] == pytest.approx([token.logprob for token in told], abs=1e-3)
    spelled = bytes(int(byte) for one in answer.logprobs for byte in one.bytes or ())
    assert spelled.decode().strip() == answer.text


def test_verbose_json_and_captions(client: OpenAI, recording: bytes, expected: Transcript) -> None:
    create = client.audio.transcriptions.create
    full = create(
        file=recording, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert full.segments is not None
    assert full.words is not None
    assert [one.text for one in full.segments] == [segment.text for segment in expected.segments]
    assert [one.word for one in full.words] == [
        word.text.strip() for segment in expected.segments for word in segment.words
    ]
    assert create(file=recording, model="whisper-1", response_format="vtt").startswith("WEBVTT")


def test_options_of_a_transcription(client: OpenAI, recording: bytes, expected: Transcript) -> None:
    create = client.audio.transcriptions.create
    quiet = create(
        file=recording,
        model="whisper-1",
        chunking_strategy={
            "type": "server_vad",
            "threshold": 0.6,
            "silence_duration_ms": 700,
            "prefix_padding_ms": 200,
        },
    )
    assert "writes each word down" in quiet.text
    lower = create(
        file=recording, model="whisper-1", prompt="it is all in lower case, always lower case, no full stops"
    )
    assert lower.text != expected.text


def test_words_come_as_events(client: OpenAI, recording: bytes) -> None:
    *deltas, done = client.audio.transcriptions.create(file=recording, model="gpt-4o-transcribe", stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta").strip() == done.text
    assert "writes each word down" in done.text
    assert len(deltas) > 5


def test_segments_come_as_events_with_log_probabilities(
    address: str, recognizer: Recognizer, sample: np.ndarray
) -> None:
    async def streamed() -> list[Any]:
        async with AsyncOpenAI(**reached(address)) as client:
            events = await client.audio.transcriptions.create(
                file=recorded(sample), model="gpt-4o-transcribe", stream=True, include=["logprobs"], temperature=0
            )
            return [event async for event in events]

    *deltas, done = asyncio.run(streamed())
    segments = recognizer.transcribe(sample, token_logprobs=True, **GREEDY).segments
    assert [event.delta for event in deltas] == [segment.text for segment in segments]
    for event, segment in zip(deltas, segments, strict=True):
        assert [one.token for one in event.logprobs] == [token.text for token in segment.logprobs or ()]
    assert [one.token for one in done.logprobs] == [one.token for event in deltas for one in event.logprobs]
    assert done.text == "".join(segment.text for segment in segments).strip()


def test_what_is_wrong_with_a_stream_has_a_status(client: OpenAI, recording: bytes) -> None:
    create = client.audio.transcriptions.create
    with pytest.raises(openai.BadRequestError) as caught:
        create(file=b"no audio", model="whisper-1", stream=True, include=["logprobs"])
    assert caught.value.param == "file"
    with pytest.raises(openai.BadRequestError) as caught:
        create(file=recording, model="whisper-1", stream=True, language="de", temperature=0.5)
    assert caught.value.param == "language"


def test_an_english_model_does_not_translate(client: OpenAI, recording: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match="knows English only and cannot translate") as caught:
        client.audio.translations.create(file=recording, model="whisper-1")
    assert caught.value.param == "model"


def test_a_model_of_many_languages_translates(base: Recognizer, recording: bytes) -> None:
    serving = served(base, "base")
    client = OpenAI(**reached(next(serving)))
    translated = client.audio.translations.create(file=recording, model="whisper-1")
    assert "word" in translated.text
    full = client.audio.translations.create(file=recording, model="whisper-1", response_format="verbose_json")
    assert (full.language, full.text) == ("en", translated.text)
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.translations.create(file=recording, model="whisper-1", extra_body={"stream": "true"})
    assert caught.value.param == "stream"
    assert next(serving, None) is None


# ------------------------------------------------------------------------------------------------------------ Deepgram


def test_deepgram_transcribes_a_recording(
    deepgram: DeepgramClient, recording: bytes, expected: Transcript, address: str
) -> None:
    answer = deepgram.listen.v1.media.transcribe_file(
        request=recording, model="nova-3", smart_format=True, utterances=True, paragraphs=True, detect_language=True
    )
    assert answer.metadata.sha256 == hashlib.sha256(recording).hexdigest()
    assert answer.metadata.duration == pytest.approx(expected.duration_s, abs=1e-3)
    assert answer.metadata.channels == 1
    (info,) = answer.metadata.model_info.values()
    assert info["name"] == "tiny.en"
    (channel,) = answer.results.channels
    (best,) = channel.alternatives
    words = [word for segment in expected.segments for word in segment.words]
    assert best.transcript == expected.text
    assert [(word.start, word.end) for word in best.words] == [(word.start, word.end) for word in words]
    assert [word.confidence for word in best.words] == pytest.approx([word.confidence for word in words], abs=1e-3)
    assert 0 < best.confidence <= 1
    assert channel.detected_language == "en"
    assert " ".join(one.transcript for one in answer.results.utterances) == expected.text
    assert [one.channel for one in answer.results.utterances] == [0] * len(answer.results.utterances)
    sentences = [sentence for one in best.paragraphs.paragraphs for sentence in one.sentences]
    assert " ".join(sentence.text for sentence in sentences) == expected.text
    assert sum(one.num_words for one in best.paragraphs.paragraphs) == len(words)


def test_deepgram_hears_channels_apart(
    address: str, recognizer: Recognizer, sample: np.ndarray, first_sentence: np.ndarray
) -> None:
    late = sample[round(4.2 * 16_000) :][: len(first_sentence)]
    stereo = recorded(first_sentence, late, format="WAV")

    async def heard() -> Any:
        client = AsyncDeepgramClient(**deepgram_at(address))
        return await client.listen.v1.media.transcribe_file(
            request=stereo, model="tiny.en", multichannel=True, utterances=True
        )

    answer = asyncio.run(heard())
    texts = [recognizer.transcribe(one, **GREEDY).text for one in (first_sentence, late)]
    assert [channel.alternatives[0].transcript for channel in answer.results.channels] == texts
    assert texts[0] != texts[1]
    assert answer.metadata.channels == 2
    assert {one.channel for one in answer.results.utterances} == {0, 1}
    starts = [one.start for one in answer.results.utterances]
    assert starts == sorted(starts)


def test_deepgram_is_told_what_is_wrong(address: str, deepgram: DeepgramClient, recording: bytes) -> None:
    def refused(**parameters: Any) -> ApiError:
        with pytest.raises(ApiError) as caught:
            deepgram.listen.v1.media.transcribe_file(**{"request": recording} | parameters)
        return caught.value

    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"request": b"no audio"}, 400, "audio"),
        ({"model": "huge"}, 404, "this server has tiny.en, dictation"),
        ({"diarize": True}, 400, "diarize"),
        ({"summarize": "v2"}, 400, "summarize"),
        ({"language": "de"}, 400, "English"),
        ({"utt_split": -1.0}, 400, "utt_split"),
    ]
    for parameters, status, words in cases:
        error = refused(**parameters)
        assert (error.status_code, words in error.body["err_msg"]) == (status, True), error.body
        assert error.body["err_code"]
        assert error.body["request_id"]
    with pytest.raises(ApiError) as caught:
        deepgram.listen.v1.media.transcribe_url(url="http://localhost/private.wav")
    assert caught.value.status_code == 400
    assert "fetches no URLs" in caught.value.body["err_msg"]
    stranger = DeepgramClient(**deepgram_at(address, "wrong"))
    with pytest.raises(ApiError) as caught:
        stranger.listen.v1.media.transcribe_file(request=recording)
    assert caught.value.status_code == 401


def test_a_long_body_is_refused_before_it_is_read(recognizer: Recognizer, recording: bytes) -> None:
    app = create_app(
        Engine(recognizer.streaming_task()), Limits(max_upload_bytes=1000), transcribe=recognizer.transcribe
    )

    async def sent() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.post("/v1/listen", content=recording)

    answer = asyncio.run(sent())
    assert answer.status_code == 413
    assert "1000 bytes" in answer.json()["err_msg"]
