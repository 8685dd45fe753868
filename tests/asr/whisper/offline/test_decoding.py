"""Search in windows: greedy, beam and sampling, alone and in company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from loquent.asr.whisper.beam_search import DecodingOptions
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.offline.decoding import WindowDecoder, compression_ratio
from loquent.asr.whisper.offline.logit_filters import logit_filters
from loquent.asr.whisper.states import AudioMemory
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.nn.streaming import Chunk


@pytest.fixture(scope="module")
def toy(toy_whisper: Whisper, tokenizer: WhisperTokenizer) -> WindowDecoder:
    return WindowDecoder(toy_whisper, tokenizer)


@pytest.fixture(scope="module")
def memory(toy: WindowDecoder) -> AudioMemory:
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        return toy.encode([torch.randn(400, 80, generator=generator) * 2 for _ in range(4)])


SEARCHES = {
    "greedy": DecodingOptions(beam_size=1, sample_len=30),
    "beam": DecodingOptions(beam_size=4, sample_len=30),
    "patient beam": DecodingOptions(beam_size=3, patience=2.0, sample_len=30),
    "sampling": DecodingOptions(temperature=0.9, best_of=3, sample_len=30),
    "text only": DecodingOptions(beam_size=3, without_timestamps=True, sample_len=30),
}


@torch.inference_mode()
@pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)
def test_a_window_gives_the_same_in_every_batch(
    toy: WindowDecoder, memory: AudioMemory, options: DecodingOptions
) -> None:
    asked = [replace(options, seed=seed, prompt=(11,) * seed) for seed in range(4)]
    together = toy.decode(memory, [0, 1, 2, 3], asked)
    for row, result in enumerate(together):
        (alone,) = toy.decode(memory, [row], [asked[row]])
        assert alone.tokens == result.tokens
        assert alone.avg_logprob == pytest.approx(result.avg_logprob, abs=1e-3)
    assert [one.tokens for one in toy.decode(memory, [2, 0], [asked[2], asked[0]])] == [
        together[2].tokens,
        together[0].tokens,
    ]
    assert len({one.tokens for one in together}) > 1


@torch.inference_mode()
@pytest.mark.parametrize("name", ["greedy", "beam", "sampling"])
def test_score_is_that_of_the_text_under_the_model(toy: WindowDecoder, memory: AudioMemory, name: str) -> None:
    """Decoding step by step, with caches moved from beam to beam, scores a text as reading it whole does."""
    options = replace(SEARCHES[name], without_timestamps=True, suppress_tokens=(), suppress_blank=False)
    (result,) = toy.decode(memory, [1], [options])
    tokens = [toy.tokenizer.sot, toy.tokenizer.no_timestamps, *result.tokens, toy.tokenizer.eot]
    decoder = toy.model.decoder
    state = decoder.initial_state(1)
    hidden, _ = decoder.step(Chunk.of(torch.tensor([tokens[:-1]])), state, torch.tensor([0]), memory, torch.tensor([1]))
    scores = decoder.logits(hidden[0]).log_softmax(-1)
    picked = scores[1:].gather(1, torch.tensor(tokens[2:])[:, None])[:, 0]
    whole = picked if len(result.tokens) < 30 else picked[:-1]  # cut off: no end was scored
    assert result.avg_logprob * (len(result.tokens) + 1) == pytest.approx(float(whole.sum()), abs=1e-2)
    assert result.logprobs == pytest.approx(picked[: len(result.tokens)].tolist(), abs=1e-3)
    assert result.no_speech_prob == pytest.approx(float(scores[0, toy.tokenizer.no_speech].exp()), rel=1e-3)


@torch.inference_mode()
def test_a_beam_finds_texts_at_least_as_probable_as_greedy(toy: WindowDecoder, memory: AudioMemory) -> None:
    greedy, beam = (toy.decode(memory, [0, 1, 2, 3], [SEARCHES[name]] * 4) for name in ("greedy", "beam"))
    assert sum(one.avg_logprob for one in beam) >= sum(one.avg_logprob for one in greedy)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["greedy", "beam", "sampling"])
def test_timestamps_obey_their_rules(toy: WindowDecoder, memory: AudioMemory, name: str) -> None:
    begin = toy.tokenizer.timestamp_begin
    for result in toy.decode(memory, [0, 1, 2, 3], [replace(SEARCHES[name], seed=5)] * 4):
        stamps = [token for token in result.tokens if token >= begin]
        assert begin <= result.tokens[0] <= begin + 50
        assert stamps == sorted(stamps)
        assert not set(result.tokens) & set(toy.tokenizer.suppressed_tokens)
        assert toy.tokenizer.no_timestamps not in result.tokens
        stamped = [token >= begin for token in result.tokens]
        assert (True, True, True) not in list(zip(stamped, stamped[1:], stamped[2:], strict=False))


@torch.inference_mode()
def test_sampling_depends_on_the_seed_alone(toy: WindowDecoder, memory: AudioMemory) -> None:
    options = SEARCHES["sampling"]
    first, again, other = (toy.decode(memory, [0], [replace(options, seed=seed)])[0].tokens for seed in (1, 1, 2))
    assert first == again != other


@torch.inference_mode()
def test_length_is_bounded(toy: WindowDecoder, memory: AudioMemory) -> None:
    (short,) = toy.decode(memory, [0], [DecodingOptions(sample_len=3)])
    assert len(short.tokens) <= 3
    (full,) = toy.decode(memory, [0], [DecodingOptions(beam_size=1, sample_len=1000, prompt=(5,) * 60)])
    assert len(full.tokens) + 49 <= toy.model.config.n_text_ctx


@torch.inference_mode()
def test_prefix_and_suppression(toy: WindowDecoder, memory: AudioMemory) -> None:
    (free,) = toy.decode(memory, [0], [SEARCHES["text only"]])
    (held,) = toy.decode(memory, [0], [replace(SEARCHES["text only"], suppress_tokens=free.tokens[:1])])
    assert free.tokens[0] not in held.tokens
    (led,) = toy.decode(memory, [0], [replace(SEARCHES["text only"], prefix=(400, 401))])
    assert led.tokens[:2] == (400, 401)
    (led,) = toy.decode(memory, [0], [replace(SEARCHES["beam"], prefix=(400, 401), prompt=(5,) * 400)])
    assert led.tokens[:3] == (toy.tokenizer.timestamp_begin, 400, 401)
    assert len(led.tokens) > 3, "no timestamp and no text behind the prefix"


@pytest.mark.parametrize("asked", [(), (220,), (-1,), (-1, 220), None])
def test_control_tokens_are_never_written(tokenizer: WhisperTokenizer, asked: tuple[int, ...] | None) -> None:
    options = DecodingOptions(suppress_tokens=asked, suppress_blank=False, without_timestamps=True)
    logits = torch.zeros(1, tokenizer.n_vocab)
    for logit_filter in logit_filters(tokenizer, options, logits.device):
        logit_filter(logits, [[]])
    forbidden = set(torch.nonzero(logits[0] == -torch.inf)[:, 0].tolist())
    listed = set(tokenizer.non_speech_tokens) if asked is None or -1 in asked else set()
    assert forbidden == {*tokenizer.control_tokens, *listed, *({220} & set(asked or ()))}
    with pytest.raises(ValueError, match="suppress_tokens: 99999 is no token"):
        logit_filters(tokenizer, DecodingOptions(suppress_tokens=(99999,)), logits.device)


def test_what_was_written_may_be_penalised_or_forbidden(tokenizer: WhisperTokenizer) -> None:
    stamp = tokenizer.timestamp_begin
    options = DecodingOptions(repetition_penalty=2.0, without_timestamps=True, suppress_tokens=(), suppress_blank=False)
    logits = torch.full((1, tokenizer.n_vocab), 3.0)
    logits[0, 11] = -3.0
    for logit_filter in logit_filters(tokenizer, options, logits.device):
        logit_filter(logits, [[stamp, 10, 11, 10]])
    assert logits[0, [9, 10, 11, stamp]].tolist() == [3.0, 1.5, -6.0, 3.0]
    for size, repeated in ((1, {10, 11}), (2, {11}), (3, set())):
        only = replace(options, repetition_penalty=1.0, no_repeat_ngram_size=size)
        logits = torch.zeros(1, tokenizer.n_vocab)
        for logit_filter in logit_filters(tokenizer, only, logits.device):
            logit_filter(logits, [[10, stamp, 11, 10]])
        forbidden = set(torch.nonzero(logits[0] == -torch.inf)[:, 0].tolist()) - set(tokenizer.control_tokens)
        assert forbidden == repeated


def test_options_that_cannot_be_are_refused(toy: WindowDecoder, memory: AudioMemory) -> None:
    with pytest.raises(ValueError, match="beam_size and best_of must be at least 1, got 0"):
        DecodingOptions(beam_size=0)
    with pytest.raises(ValueError, match="temperature >= 0"):
        DecodingOptions(temperature=-1)
    with pytest.raises(ValueError, match="differ in more than"):
        toy.decode(memory, [0, 1], [DecodingOptions(), DecodingOptions(beam_size=2)])
    with pytest.raises(ValueError, match="English-only"):
        toy.decode(memory, [0], [DecodingOptions(language="de")])


@torch.inference_mode()
def test_the_real_model_reads_the_sample(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, sample: np.ndarray, sample_text: str
) -> None:
    decoder = WindowDecoder(tiny_en, tokenizer)
    mel = normalize_window(WhisperLogMel()(torch.from_numpy(sample)[None]))[0]
    heard = decoder.encode([torch.nn.functional.pad(mel, (0, 0, 0, 3000 - len(mel)))])
    assert decoder.detect_language(heard, [0]) == [{"en": 1.0}]
    (result,) = decoder.decode(heard, [0], [DecodingOptions()])
    assert result.text.startswith("Streaming recognition writes each word down while you are still speaking.")
    assert result.text.endswith("without losing the last word.")
    assert abs(len(result.text) - len(sample_text)) < 30
    assert -0.3 < result.avg_logprob < 0
    assert result.no_speech_prob < 0.1


def test_compression_ratio_tells_repetition() -> None:
    assert compression_ratio("Once there was a small house by the sea.") < 1.2
    assert compression_ratio("and then " * 30) > 2.4
