"""The recipe of causal Whisper in miniature: it trains what streaming runs, learns, resumes, and its export loads."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig

from loquent.asr.whisper.checkpoint import load_whisper, save_whisper
from loquent.asr.whisper.config import WhisperConfig
from loquent.asr.whisper.conversion import weight_shapes
from loquent.asr.whisper.live.encoding import IncrementalEncoding, with_tail
from loquent.asr.whisper.live.memo import AudioWindow
from loquent.asr.whisper.lora import load_adapter, merge
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.recipes.data.manifest import SAMPLE_RATE
from loquent.recipes.loop.config import ConfigError, parse_config
from loquent.recipes.loop.low_rank import NAME, adapted_layers, add_adapter
from loquent.recipes.loop.training import Training, TrainingOptions
from loquent.recipes.train import read_run
from loquent.recipes.whisper.adapter_options import AdapterOptions
from loquent.recipes.whisper.loss import (
    CausalWhisperLoss,
    LossOptions,
    block_ends,
    encode_windows,
    feature_distance,
    read_moments,
)
from loquent.recipes.whisper.moments import NOTHING, Moment, Transcript, pack, sample_moments
from loquent.recipes.whisper.recipe import CausalWhisperConfig, CausalWhisperRecipe
from loquent.speech.audio.features import RunningMaxNormalize, WhisperLogMel, normalize_window
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.hub import resolve
from loquent.speech.nn.streaming import Chunk

SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"
TEXTS = ("And so", "my fellow", "Americans", "ask not", "what your", "country can", "do for", "you")
few = settings(max_examples=8, deadline=None)


@pytest.fixture(autouse=True)
def another_process() -> None:
    """Accelerate takes its settings once in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper with random weights and windows of 8 s, with the tokenizer of tiny.en."""
    real = load_whisper(resolve("tiny.en").path)
    config = WhisperConfig(80, 400, 32, 2, 2, real.config.n_vocab, 96, 32, 2, 2, alignment_heads=((1, 0),))
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(shape, generator=generator) * (1.0 if "embedding" in name else 0.15)
        for name, shape in weight_shapes(config).items()
    }
    folder = tmp_path_factory.mktemp("model")
    save_whisper(folder, config, weights, real.tokenizer_files)
    return folder


@pytest.fixture(scope="module")
def toy(model_folder: Path) -> Whisper:
    loaded = load_whisper(model_folder)
    return Whisper.from_weights(loaded.config, loaded.weights)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return read_audio(SAMPLE, SAMPLE_RATE).samples


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, sample: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number, text in enumerate(TEXTS):
        start = round((0.3 + 0.8 * number) * SAMPLE_RATE)
        write_audio(folder / f"{number}.wav", sample[start : start + SAMPLE_RATE], SAMPLE_RATE)
        rows.append({"path": f"{number}.wav", "text": text, "duration": 1.0, "speaker": f"speaker {number}"})
    lines = [json.dumps(row | {"split": split}) for split in ("train", "eval") for row in rows]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


def configuration(model_folder: Path, data: Path, word_times: Path, **more: Any) -> dict[str, Any]:
    source = {"set": {"manifest": str(data)}}
    return {
        "model": str(model_folder),
        "data": {
            "train": source,
            "test": source,
            "held_out": 0.4,
            "test_recordings": 2,
            "word_times": {
                "folder": str(word_times),
                "aligner": str(model_folder),
                "least_probability": 0.0,
                "words_per_second": 100,
            },
        },
        "adapter": {"rank": 4, "feed_forward": True},
        "loss": {"chunk_ms": [200, 400], "distillation": 0.1},
        "windows": {"longest_s": 4, "joined": 0.7},
        "batch": {"duration_s": 8, "buckets": 2},
        "augment": {"padding_s": [0.0, 0.2], "noise": 0.5},
        "evaluate_ms": [400],
        **more,
    }


@few
@given(
    lengths=st.lists(st.integers(800, 6 * SAMPLE_RATE), min_size=1, max_size=3),
    block=st.integers(5, 50),
    seed=st.integers(0, 2**31),
)
def test_what_is_trained_is_what_streaming_runs(
    toy: Whisper, sample: np.ndarray, lengths: list[int], block: int, seed: int
) -> None:
    """The decoder's view of the audio in training, for windows side by side, is that of `IncrementalEncoding`."""
    starts = np.random.default_rng(seed).integers(0, len(sample) - 6 * SAMPLE_RATE, len(lengths))
    rows = [
        torch.from_numpy(sample[start : start + length].copy()) for start, length in zip(starts, lengths, strict=True)
    ]
    features = WhisperLogMel()
    with torch.no_grad():
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        chunk = Chunk(padded, torch.tensor(lengths), torch.ones(len(rows), dtype=torch.bool))
        log_mel = features.step(chunk, features.initial_state(len(rows)))
        log_mel = with_tail(log_mel, 2 * toy.config.n_audio_ctx - log_mel.length)
        normalize = RunningMaxNormalize()
        mel = normalize.step(log_mel, normalize.initial_state(len(rows)))
        encoded, frames = encode_windows(toy.encoder, mel, range(block, 400 + block, block))

        for row, samples in enumerate(rows):
            encoding = IncrementalEncoding(toy, block)
            state = encoding.initial_state(1)
            ring = torch.zeros(1, 2 * toy.config.n_audio_ctx, 80)
            whole = features(samples[None])[0]
            ring[0, : len(whole)] = whole
            window = AudioWindow(0, 0, 0, [])
            slot = torch.zeros(1, dtype=torch.long)
            for end in range(2 * block + 1, len(whole), 2 * block):
                encoding.encode(ring, state, slot, [window], [end], [False])
                assert int(state.memory.frames) == end // 2  # what `Moment.heard` counts: whole chunks
            encoding.encode(ring, state, slot, [window], [len(whole)], [True])
            count = int(frames[row])
            assert int(state.memory.frames) == count
            for layer, memory in zip(toy.decoder.blocks, state.memory.layers, strict=True):
                wanted = layer.cross_attn.split(layer.cross_attn.key(encoded[row, :count])).transpose(0, 1)
                torch.testing.assert_close(memory.k[0, :, :count], wanted, rtol=1e-3, atol=1e-3)


def test_a_pass_over_packed_moments_is_streaming(toy: Whisper, tokenizer: WhisperTokenizer) -> None:
    """The decoder's hidden states in training are those of its steps, with the keys and values that they keep."""
    sot = list(tokenizer.sot_sequence("en", timestamps=False))
    transcripts = [
        Transcript(sot, tokenizer.encode(" one two three four five"), [0.1, 0.2, 0.3, 0.4, 0.5]),
        Transcript([7, *sot], [5], [1.0]),
    ]
    moments = [
        [Moment(10, 0, 0), Moment(20, 0, 2), Moment(30, 1, 3), Moment(40, 3, 3), Moment(50, 3, 5)],
        [Moment(30, 0, 1)],
    ]
    decoder = toy.decoder
    encoded = torch.randn(2, 50, 32, generator=torch.Generator().manual_seed(0))
    slot = torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        packed = pack(transcripts, moments, tokenizer.eot, torch.device("cpu"))
        hidden = read_moments(decoder, packed, encoded)
        for row, (transcript, of_row) in enumerate(zip(transcripts, moments, strict=True)):
            text, control = transcript.control + transcript.tokens, len(transcript.control)
            state, memory = decoder.initial_state(1), decoder.initial_memory(1)
            at = heard = 0
            for number, moment in enumerate(of_row):
                decoder.add_audio(Chunk.of(encoded[row : row + 1, heard : moment.heard]), memory, slot)
                heard = moment.heard
                begin = control - 1 + moment.kept if number else 0
                state.position[slot] = begin
                fed = text[begin : control + moment.written]
                streamed, _ = decoder.step(Chunk.of(torch.tensor([fed])), state, slot, memory, slot)
                torch.testing.assert_close(hidden[row, at : at + len(fed)], streamed[0], rtol=1e-3, atol=1e-3)
                at += len(fed)


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> WhisperTokenizer:
    return WhisperTokenizer.load(model_folder)


def test_it_learns_and_its_export_is_what_was_trained(
    model_folder: Path, data: Path, tmp_path: Path, toy: Whisper
) -> None:
    config = parse_config(CausalWhisperConfig, configuration(model_folder, data, tmp_path / "times"))
    recipe = CausalWhisperRecipe(config, tmp_path / "run")
    options = TrainingOptions(steps=24, learning_rate=1e-2, warmup=2, average=0.8, log_every=4, evaluate_every=12)
    figures = Training(recipe, options, tmp_path / "run", {}).run()
    assert figures is not None
    assert {"wer", "400ms/wer", "400ms/set/wer"} <= figures.keys()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    curve = [line["tokens"] for line in lines if "tokens" in line]
    assert curve[-1] < 0.9 * curve[0]
    assert any("valid/400ms/loss" in line for line in lines)

    # PEFT's format, ours and what is in memory are one adapter.
    from peft import PeftModel

    adapter = load_adapter(tmp_path / "run" / "best")
    settings = json.loads((tmp_path / "run" / "best" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(model_folder)
    assert (adapter.info.base, adapter.info.chunk_ms, adapter.info.language) == (str(model_folder), (200, 400), "en")
    recipe.save(tmp_path / "last")
    mel = torch.randn(1, 100, 80, generator=torch.Generator().manual_seed(0))
    merged, wrapped = (Whisper.from_weights(toy.config, load_whisper(model_folder).weights) for _ in range(2))
    merge(merged, load_adapter(tmp_path / "last"))
    loaded = PeftModel.from_pretrained(wrapped, str(tmp_path / "last"))
    with torch.no_grad():
        expected = recipe.loss.whisper.eval().encoder(mel)
        assert float((expected - toy.encoder(mel)).abs().max()) > 1e-3
        torch.testing.assert_close(merged.encoder(mel), expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(loaded.get_base_model().encoder(mel), expected, rtol=1e-3, atol=1e-3)


def test_training_goes_on_from_an_adapter(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = parse_config(CausalWhisperConfig, configuration(model_folder, data, tmp_path / "times"))
    first = CausalWhisperRecipe(config, tmp_path)
    for name, weight in first.loss.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    first.save(tmp_path / "adapter")
    second = CausalWhisperRecipe(dataclasses.replace(config, start=str(tmp_path / "adapter")), tmp_path)
    for name, weight in second.loss.state_dict().items():
        torch.testing.assert_close(weight, first.loss.state_dict()[name], rtol=1e-6, atol=1e-6)
    narrow = dataclasses.replace(config, start=str(tmp_path / "adapter"), adapter=AdapterOptions(rank=2))
    with pytest.raises(ConfigError, match="its rank is 4"):
        CausalWhisperRecipe(narrow, tmp_path)


def test_a_run_that_was_stopped_ends_with_the_same_bits(model_folder: Path, data: Path, tmp_path: Path) -> None:
    config = parse_config(CausalWhisperConfig, configuration(model_folder, data, tmp_path / "times"))

    class Stopped(CausalWhisperRecipe):
        made = 0

        def collate(self, items: Any, epoch: int) -> dict[str, Any]:
            self.made += 1
            if self.made == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().collate(items, epoch)

        def evaluate(self) -> dict[str, float]:
            return {"loss": 1.0}

        def test(self, folder: Path) -> dict[str, float]:
            return {}

    class Whole(Stopped):
        made = 100

    options = TrainingOptions(steps=6, warmup=2, log_every=2, evaluate_every=6)
    assert Training(Stopped(config, tmp_path), options, tmp_path / "parts", {}).run() is None
    Training(Whole(config, tmp_path), options, tmp_path / "parts", {}).run()
    Training(Whole(config, tmp_path), options, tmp_path / "whole", {}).run()
    weights = [tmp_path / name / "best" / "adapter_model.safetensors" for name in ("parts", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.fixture
def loss(toy: Whisper, tokenizer: WhisperTokenizer) -> CausalWhisperLoss:
    """Of a model with an adapter that changes it."""
    model = Whisper.from_weights(toy.config, {name: p.clone() for name, p in toy.state_dict().items()})
    add_adapter(model, LoraConfig(r=2, lora_alpha=2, target_modules=["query", "value"]))
    for layer in adapted_layers(model).values():
        torch.nn.init.normal_(layer.lora_B[NAME].weight)
    return CausalWhisperLoss(model, tokenizer.eot, LossOptions(chunk_ms=(200,)))


def test_the_teacher_is_the_model_as_it_was(loss: CausalWhisperLoss, toy: Whisper) -> None:
    """It hears the whole window, and the silence after it."""
    samples = torch.randn(2, 2 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    log_mel = loss.log_mel(samples, torch.tensor([2 * SAMPLE_RATE, SAMPLE_RATE]))
    heard = loss.teacher_features(log_mel)
    silence = log_mel.data.masked_fill(~log_mel.mask[..., None], -10.0)
    mel = torch.nn.functional.pad(silence, (0, 0, 0, 2 * heard.shape[1] - silence.shape[1]), value=-10.0)
    torch.testing.assert_close(heard, toy.encoder(normalize_window(mel)))
    encoded, frames = loss.encode(log_mel, block_ends(200, 200))
    assert float(feature_distance(encoded, heard, frames)) > 1e-3
    assert float(feature_distance(heard, heard, frames)) == 0


def test_blocks_are_cut_where_chunks_end(toy: Whisper, sample: np.ndarray) -> None:
    """The latest block of a stream is incomplete at most chunk ends; a frame never attends to what comes later."""
    assert block_ends(25, 200) == [10, 20, 30]
    torch.manual_seed(0)
    seen = [block_ends(220, 300, 1000) for _ in range(40)]
    assert all(set(ends) >= {50, 100, 150, 200, 250} for ends in seen)
    cuts = {end for ends in seen for end in ends if end % 50}
    assert {15, 30, 45, 60, 75, 90, 105} <= cuts
    assert all(end % 15 == 0 for end in cuts)
    assert 0.35 < sum(len(ends) - 5 for ends in seen) / (5 * len(seen)) < 0.65

    mel = torch.randn(1, 120, 80, generator=torch.Generator().manual_seed(0))
    later = mel.clone()
    later[:, 60:] += 1.0  # encoder frames from 30 on, and one before, which the convolutions read
    with torch.no_grad():
        one, other = (encode_windows(toy.encoder, Chunk.of(x), [15, 28, 60])[0] for x in (mel, later))
    torch.testing.assert_close(one[:, :28], other[:, :28])
    assert float((one[:, 28] - other[:, 28]).abs().max()) > 1e-4


def test_words_are_learnt_from_the_stock_decoder(loss: CausalWhisperLoss, toy: Whisper, sample: np.ndarray) -> None:
    """Its probabilities, given the whole window and all text before; waiting is learnt from labels alone."""
    texts = [Transcript([1, 2], [5, 6, 7], [0.5, 1.0, 2.5]), Transcript([1, 2], [8, 9, 10], [0.3, 0.6, 0.9])]
    samples = torch.from_numpy(np.stack([sample[:48000], sample[48000:96000]]))
    batch = {"samples": samples, "length": torch.tensor([48000, 32000]), "transcripts": texts, "chunk_ms": 200}

    def value(share: float) -> tuple[float, dict[str, torch.Tensor]]:
        loss.options = LossOptions((200,), distillation=0.0, teacher_share=share)
        torch.manual_seed(0)
        total, figures = loss(batch)
        return total.item(), figures

    plain, figures = value(0.0)
    assert plain == pytest.approx(figures["tokens"].item())
    half, whole = value(0.5)[0], value(1.0)[0]
    assert half == pytest.approx((plain + whole) / 2, rel=1e-4)
    assert value(1.0)[1]["tokens"].item() == pytest.approx(plain)  # the figure is that of the labels

    torch.manual_seed(0)
    log_mel = loss.log_mel(batch["samples"], batch["length"])
    ends = block_ends(log_mel.data.shape[1] // 2, 200)
    encoded, frames = loss.encode(log_mel, ends)
    torch.manual_seed(0)
    moments = [
        sample_moments(one, count, ends, loss.options.moments)
        for one, count in zip(texts, frames.tolist(), strict=True)
    ]
    packed = pack(texts, moments, loss.eot, encoded.device)
    scores = loss.whisper.decoder.logits(read_moments(loss.whisper.decoder, packed, encoded)).log_softmax(-1)
    heard = loss.teacher_features(log_mel)
    parts = []
    for row, text in enumerate(texts):
        expected = toy.decoder(torch.tensor([text.control + text.tokens]), heard[row : row + 1]).log_softmax(-1)[0]
        for at, target in enumerate(packed.targets[row].tolist()):
            ours, theirs = scores[row, at], expected[packed.position[row, at]]
            if target == loss.eot:
                parts.append(-ours[target])
            elif target != NOTHING:
                parts.append((theirs.exp() * (theirs - ours)).sum())
    assert whole == pytest.approx(float(sum(parts)) / len(parts), rel=1e-3)


def test_the_teacher_hears_the_clean_window(loss: CausalWhisperLoss, sample: np.ndarray) -> None:
    samples, text = torch.from_numpy(sample[None, :48000]), [Transcript([1, 2], [5, 6], [0.5, 1.0])]
    batch = {"samples": samples, "length": torch.tensor([48000]), "transcripts": text, "chunk_ms": 200}
    noisy = batch | {"samples": samples + 0.05 * torch.randn(samples.shape, generator=torch.Generator().manual_seed(0))}

    def distance(given: dict[str, Any]) -> float:
        torch.manual_seed(0)
        return loss(given)[1]["distance"].item()

    assert distance(batch | {"clean": samples}) == pytest.approx(distance(batch))
    log_mel = loss.log_mel(noisy["samples"], batch["length"])
    encoded, frames = loss.encode(log_mel, block_ends(200, 200))
    heard = loss.teacher_features(loss.log_mel(samples, batch["length"]))
    assert distance(noisy | {"clean": samples}) == pytest.approx(float(feature_distance(encoded, heard, frames)))


def test_the_loss_in_bfloat16_is_that_in_float32(loss: CausalWhisperLoss, sample: np.ndarray) -> None:
    window = torch.from_numpy(sample[None, : 3 * SAMPLE_RATE])
    text = Transcript([1, 2], [5, 6, 7], [0.5, 1.0, 2.5])
    batch = {"samples": window, "length": torch.tensor([3 * SAMPLE_RATE]), "transcripts": [text], "chunk_ms": 200}
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        loss.whisper.to(dtype)
        for name, factor in loss.named_parameters():
            if "lora" in name:
                factor.data = factor.data.float()
        torch.manual_seed(0)
        losses.append(loss(batch)[0].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.parametrize("name", ["causal_tiny_en", "causal_base"])
def test_the_configurations_that_come_with_loquent(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOQUENT_DATA", str(tmp_path))
    run = read_run(name)
    assert run.recipe is CausalWhisperRecipe
    assert isinstance(run.config, CausalWhisperConfig)
    assert run.config.model == name.removeprefix("causal_").replace("_", ".")


def test_recordings_of_one_person_can_be_trained_on(model_folder: Path, data: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) | {"speaker": "me"} for line in (data / "manifest.jsonl").read_text().splitlines()]
    rows = [row | {"path": str(data / row["path"])} for row in lines]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = parse_config(CausalWhisperConfig, configuration(model_folder, tmp_path, tmp_path / "times"))
    recipe = CausalWhisperRecipe(config, tmp_path / "run")
    held = {one.row.id for one in recipe.valid["set"]}
    assert len(held) == 3
    assert held.isdisjoint(one.row.id for one in recipe.data.utterances)
