"""The Conformer as a recogniser: files, streams of several latencies, phrases, folders, and what it refuses."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from loquent.asr.conformer.model import ConformerModel, ConformerModelConfig
from loquent.asr.conformer.options import ConformerOptions
from loquent.asr.conformer.recognizer import ConformerRecognizer
from loquent.asr.conformer.task import ConformerStreamingTask
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.recognizer import Recognizer
from loquent.asr.search.language_model import Fusion
from loquent.asr.search.tokens import Advance, Token
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import write_audio
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final
from loquent.speech.transcript import Segment

RATE = 16_000
CHUNKS = (320, 80, 160)  # of the toy, in ms


@pytest.fixture(scope="module")
def recognizer(toy_conformer: tuple[ConformerModel, SubwordTokenizer]) -> ConformerRecognizer:
    return ConformerRecognizer(*toy_conformer, batch=2)


def finals(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]


def streamed(recognizer: ConformerRecognizer, audio: np.ndarray, **options) -> list[str]:
    session = recognizer.session(**options)
    return finals(session.push(audio) + session.finish())


@pytest.mark.parametrize("head", ["ctc", "transducer"])
@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("chunk_ms", CHUNKS)
def test_a_file_reads_as_its_stream_does(recognizer, sample, head, beam_size, chunk_ms):
    options = {"head": head, "beam_size": beam_size, "chunk_ms": chunk_ms}
    transcript = recognizer.transcribe(sample[: 9 * RATE], word_timestamps=True, **options)
    assert [segment.text for segment in transcript.segments] == streamed(recognizer, sample[: 9 * RATE], **options)
    assert transcript.text or chunk_ms == 160
    for segment in transcript.segments:
        assert "".join(word.text for word in segment.words).strip() == segment.text
        assert segment.start == segment.words[0].start
        assert segment.end == segment.words[-1].end
    assert (transcript.language, transcript.duration_s) == ("en", 9.0)


def test_files_share_batches_and_a_bad_one_harms_nobody(recognizer, sample, tmp_path):
    lengths = (3 * RATE, 7 * RATE + 13, 0, RATE // 50, 5 * RATE)
    alone = [recognizer.transcribe(sample[:length]).text for length in lengths]
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    write_audio(tmp_path / "good.wav", sample[: lengths[0]], RATE)
    sources = [*(sample[:length] for length in lengths), tmp_path / "bad.wav", tmp_path / "good.wav"]
    found = recognizer.transcribe_files(sources)
    assert [one.text for one in found[:5]] == alone
    assert isinstance(found[5], AudioError)
    pcm16 = (sample[: lengths[0]] * 32768).round().clip(-32768, 32767).astype(np.int16)
    assert found[6].text == recognizer.transcribe(pcm16).text
    kinds = [type(item) for number, item in recognizer.segments(sources[:1])]
    assert kinds[:-1] == [Segment] * (len(kinds) - 1)


def test_streams_of_every_latency_share_a_batch_and_change_it(recognizer, sample):
    """A stream that changes its latency says what it says alone, whoever shares its steps."""
    audio = sample[: 6 * RATE]
    task = recognizer.streaming_task()

    def run(engine: Engine, plan: tuple[int, int]) -> list[str]:
        session = engine.open(chunk_ms=plan[0])
        first = session.push(audio[: 3 * RATE])
        session.configure(chunk_ms=plan[1])
        return finals(first + session.push(audio[3 * RATE :]) + session.finish())

    plans = [(a, b) for a in CHUNKS for b in CHUNKS]
    alone = [run(Engine(task), plan) for plan in plans]
    assert [alone[plans.index((c, c))] for c in CHUNKS] == [streamed(recognizer, audio, chunk_ms=c) for c in CHUNKS]
    engine = Engine(task, capacity=len(plans))
    sessions = [engine.open(chunk_ms=a) for a, _ in plans]
    events: list[list[Event]] = [[] for _ in plans]
    for half, session_options in ((audio[: 3 * RATE], [b for _, b in plans]), (audio[3 * RATE :], None)):
        for session in sessions:
            session.feed(half)
        while any(session.ready for session in sessions):
            engine.step()
        for index, session in enumerate(sessions):
            if session_options:
                session.configure(chunk_ms=session_options[index])
            else:
                session.end()
    while any(session.ready for session in sessions):
        engine.step()
    for heard, session in zip(events, sessions, strict=True):
        heard += session.drain()
    assert [finals(heard) for heard in events] == alone


@pytest.mark.parametrize("head", ["ctc", "transducer"])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_phrases_belong_to_a_stream(recognizer, sample, head, beam_size):
    audio, options = sample[: 5 * RATE], {"head": head, "beam_size": beam_size}
    plain = streamed(recognizer, audio, **options)
    biased = streamed(recognizer, audio, phrases=["wizards", "lazy dog"], phrase_boost=6.0, **options)
    assert biased != plain
    engine = Engine(recognizer.streaming_task(**options), capacity=2)
    one, two = engine.open(), engine.open(phrases=["wizards", "lazy dog"], phrase_boost=6.0)
    for session in (one, two):
        session.feed(audio)
        session.end()
    while one.ready or two.ready:
        engine.step()
    assert (finals(one.drain()), finals(two.drain())) == (plain, biased)
    assert recognizer.transcribe(
        audio, phrases=("wizards", "lazy dog"), phrase_boost=6.0, chunk_ms=320, **options
    ).text == " ".join(biased)


def test_folders_hold_all_that_a_recogniser_needs(recognizer, sample, tmp_path):
    audio = sample[: 4 * RATE]
    recognizer.model.save_pretrained(tmp_path, recognizer.tokenizer)
    loaded = Recognizer.from_pretrained(tmp_path)
    assert isinstance(loaded, ConformerRecognizer)
    assert loaded.transcribe(audio).text == recognizer.transcribe(audio).text
    recognizer.model.save_pretrained(tmp_path, recognizer.tokenizer, torch.float16)
    assert Recognizer.from_pretrained(tmp_path).model.encoder.layers[0].norm_out.weight.dtype == torch.float32
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="cannot read the model"):
        Recognizer.from_pretrained(tmp_path)


def test_weights_have_to_fit(toy_conformer):
    model = toy_conformer[0]
    weights = model.state_dict()
    with pytest.raises(ValueError, match="missing"):
        ConformerModel.from_weights(model.config, {k: v for k, v in weights.items() if "joiner" not in k})
    with pytest.raises(ValueError, match="has shape"):
        ConformerModel.from_weights(model.config, weights | {"ctc.out.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="needs a head"):
        ConformerModelConfig(model.config.encoder, 10, ctc=False)
    assert ConformerModelConfig.from_dict(model.config.to_dict()) == model.config
    with pytest.raises(ValueError, match="model_type"):
        ConformerModelConfig.from_dict({"model_type": "whisper"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_ms": 100}, "chunks of 80, 160, 320 ms, not 100"),
        ({"policy": "alignatt"}, "policy: unknown"),
        ({"language": "de"}, "'en' only"),
        ({"task": "translate"}, "only 'transcribe'"),
        ({"head": "attention"}, "head: expected one of ctc, transducer"),
        ({"beam_size": 0}, "expected 1 to 64"),
        ({"phrases": "one two"}, "phrases: expected a list"),
        ({"phrases": ["x"] * 1001}, "at most 1000"),
        ({"phrases": ["x y"], "phrase_boost": 1e39}, "at most 100"),
        ({"phrases": ["x y"], "phrase_boost": True}, "phrase_boost: expected a number"),
        ({"phrases": ["lazy dog " * 20] * 500}, "10000 tokens in all"),
        ({"phrases": ["naïve"]}, "cannot write"),
    ],
)
def test_what_it_cannot_do_is_said(recognizer, options, message):
    with pytest.raises(ValueError, match=message):
        recognizer.session(**options)


def test_late_tokens_come_before_what_an_endpoint_makes_final(recognizer):
    """A beam agrees on its first token in a chunk that an endpoint falls into, with the second one still open."""
    task = recognizer.streaming_task(beam_size=3)
    start = [id_ for id_ in range(task.tokenizer.vocab_size) if task.tokenizer.is_word_start(id_)]
    late, open_ = Token(start[1], 8, 1.0), Token(start[2], 12, 1.0)
    memo, events, pool = task.start(task.Options()), [], SimpleNamespace(search=None)
    task.search = SimpleNamespace(flush=lambda *_: [Advance([open_], [])])
    task._follow(memo, Advance([], [late, open_]), 14, False, pool, None, events)
    task._follow(memo, Advance([late], [open_]), 28, False, pool, None, events)
    texts = [event.text.strip() for event in events if event.type == "word"]
    assert texts == [task.tokenizer.decode([late.id]), task.tokenizer.decode([open_.id])]
    assert finals(events) == [" ".join(texts)]


def test_memos_out_of_range_are_refused(recognizer):
    task = recognizer.streaming_task()
    sound = json.loads(json.dumps(task.start(task.Options(phrases=("fox",))).to_dict()))
    assert json.loads(json.dumps(task.restore(sound).to_dict())) == sound
    wrong = [{"lookahead": 5}, {"lookahead": "x"}, {"frames": -1}, {"samples": "a"}, {"utterance": 5}]
    for values in (*wrong, {"word": [[999, 1, 0.5]]}, {"search": {}}, {"more": 1}):
        with pytest.raises(ValueError, match="not the memo"):
            task.restore(sound | values)
    with pytest.raises(ValueError, match="out of range"):
        task.restore(sound | {"search": {**sound["search"], "hypotheses": sound["search"]["hypotheses"] * 2}})


def test_a_language_model_joins_a_beam(recognizer, sample):
    model, tokenizer = recognizer.model, recognizer.tokenizer

    class Fond:
        """Prefers one token to all others."""

        def start(self):
            return ()

        def advance(self, context, token):
            return ()

        def scores(self, contexts):
            scores = torch.full((len(contexts), tokenizer.vocab_size), -20.0)
            scores[:, 5] = 0.0
            return scores

    options = ConformerOptions(beam_size=3, head="ctc")
    session = Engine(ConformerStreamingTask(model, tokenizer, options, Fusion(Fond(), weight=1.0))).open()
    with_model = finals(session.push(sample[: 5 * RATE]) + session.finish())
    assert with_model != streamed(recognizer, sample[: 5 * RATE], beam_size=3, head="ctc")
    with pytest.raises(ValueError, match="joins a beam"):
        ConformerStreamingTask(model, tokenizer, None, Fusion(Fond()))


def test_a_missing_head_is_said(toy_conformer):
    model, tokenizer = toy_conformer
    config = ConformerModelConfig(model.config.encoder, model.config.vocabulary)
    only_ctc = ConformerRecognizer(ConformerModel(config).eval(), tokenizer)
    with pytest.raises(ValueError, match="no transducer head"):
        only_ctc.session(head="transducer")
    only_ctc.session()
