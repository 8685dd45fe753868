"""Fine-tuning in miniature: from a folder of recordings to an adapter, its figures, and the picture of its curve."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch.nn import functional as F
from transformers import WhisperForConditionalGeneration

from loquent.asr import Recognizer
from loquent.asr.whisper.checkpoint import load_whisper, save_whisper
from loquent.asr.whisper.config import WhisperConfig
from loquent.asr.whisper.conversion import weight_shapes
from loquent.asr.whisper.lora import load_adapter
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.recipes.data.augment import AugmentOptions, SpecAugmentOptions
from loquent.recipes.data.batching import BatchOptions
from loquent.recipes.data.manifest import SAMPLE_RATE, ManifestError, Utterance
from loquent.recipes.loop.config import ConfigError, parse_config
from loquent.recipes.loop.training import Training, TrainingOptions
from loquent.recipes.train import read_run
from loquent.recipes.whisper.fine_tuning import WhisperLoraConfig, WhisperLoraRecipe, live_adapter
from loquent.recipes.whisper.merge_adapter import main
from loquent.recipes.whisper.passages import NOTHING, PassageData, PassageOptions
from loquent.recipes.whisper.recipe import CausalWhisperConfig, CausalWhisperRecipe
from loquent.recipes.whisper.teacher_forcing import TeacherForcingLoss
from loquent.recipes.whisper.word_times import WordTimes, WordTimesOptions
from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.hub import resolve

SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"
TEXTS = ("streaming", "recognition writes", "each word", "down while", "you are", "still speaking", "Ada", "Lovelace")
STILL = AugmentOptions(speed=(1.0, 1.0), gain_db=(0.0, 0.0), padding_s=(0.0, 0.0))


@pytest.fixture(autouse=True)
def another_process() -> None:
    """Accelerate takes its settings once in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper with random weights and windows of 8 s, with the tokenizer of tiny.en."""
    real = load_whisper(resolve("tiny.en").path)
    config = WhisperConfig(80, 400, 32, 2, 2, real.config.n_vocab, 64, 32, 2, 2, alignment_heads=((1, 0),))
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
def tokenizer(model_folder: Path) -> WhisperTokenizer:
    return WhisperTokenizer.load(model_folder)


def recordings(folder: Path, count: int = len(TEXTS), **columns: str) -> Path:
    """A list of the first texts, all by the same speaker, each said for a second."""
    samples = read_audio(SAMPLE, SAMPLE_RATE).samples
    folder.mkdir(exist_ok=True, parents=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "text", *columns])
        for number, text in enumerate(TEXTS[:count]):
            write_audio(folder / f"{number}.wav", samples[number * SAMPLE_RATE :][:SAMPLE_RATE], SAMPLE_RATE)
            table.writerow([f"{number}.wav", text, *columns.values()])
    return folder


def configuration(model_folder: Path, data: Path, **more: Any) -> WhisperLoraConfig:
    values = {
        "model": str(model_folder),
        "data": {"folder": str(data), "held_out": 0.25},
        "adapter": {"rank": 4},
        "batch": {"duration_s": 8, "buckets": 2},
        "augment": {"padding_s": [0.0, 0.2], "noise": 0.5},
        "spec_augment": {"frequency_masks": 1, "time_masks": 1},
    }
    return parse_config(WhisperLoraConfig, values | more)


def test_from_recordings_of_one_person_to_an_adapter(model_folder: Path, tmp_path: Path) -> None:
    data = recordings(tmp_path / "data", speaker="me")
    (data / "0.wav").write_bytes(b"no audio")
    run = tmp_path / "run"
    with pytest.warns(RuntimeWarning, match=r"1 recordings are left out, see .*left_out\.txt: .*0\.wav"):
        recipe = WhisperLoraRecipe(configuration(model_folder, data, test_recordings=1), run)
    assert "0.wav: " in (run / "left_out.txt").read_text()
    assert (len(recipe.data.rows), len(recipe.valid)) == (5, 2)
    assert recipe.tested == recipe.valid
    assert recipe.data.rows[0].text[0].isupper()  # as Whisper writes

    options = TrainingOptions(steps=30, learning_rate=1e-2, warmup=2, average=0.5, log_every=5, evaluate_every=15)
    figures = Training(recipe, options, run, {}).run()
    assert figures is not None
    assert figures.keys() == {
        *(f"{when}/{how}/wer" for when in ("before", "after") for how in ("recordings", "live")),
        "tested_recordings",
        "tested_words",
    }
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    curve = [line["loss"] for line in lines if "loss" in line]
    assert curve[-1] < 0.95 * curve[0]
    assert (run / "curve.svg").read_text().startswith("<?xml")
    assert not (run / "live").exists()  # there is no adapter for live audio of this model

    adapter = load_adapter(run / "best")
    assert (adapter.info.base, adapter.info.language, adapter.info.chunk_ms) == (str(model_folder), "en", ())

    main([str(model_folder), str(run / "best"), str(tmp_path / "merged")])
    merged = WhisperForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    mel = torch.randn(1, 800, 80, generator=torch.Generator().manual_seed(0))
    adapted = Recognizer.from_pretrained(model_folder, adapter=run / "best")
    assert isinstance(adapted, WhisperRecognizer)
    with torch.no_grad():
        expected = adapted.model.encoder(mel)
        torch.testing.assert_close(merged.model.encoder(mel.mT).last_hidden_state, expected, rtol=1e-3, atol=1e-3)
        stock = Recognizer.from_pretrained(model_folder)
        assert isinstance(stock, WhisperRecognizer)
        assert float((stock.model.encoder(mel) - expected).abs().max()) > 1e-2


def test_adapters_for_live_audio_are_not_merged(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is for live audio"):
        main(["tiny.en", "loquent/live-tiny.en", str(tmp_path)])
    with pytest.raises(SystemExit, match="nowhere"):
        main(["tiny.en", "./nowhere", str(tmp_path)])


def test_the_splits_of_a_folder(model_folder: Path, tmp_path: Path) -> None:
    for split, count in (("train", 6), ("validation", 2), ("test", 3)):
        recordings(tmp_path / "data" / split, count)
    recipe = WhisperLoraRecipe(configuration(model_folder, tmp_path / "data"), tmp_path)
    assert [len(rows) for rows in (recipe.data.rows, recipe.valid, recipe.tested)] == [6, 2, 3]
    (tmp_path / "data" / "validation" / "metadata.csv").unlink()
    recipe = WhisperLoraRecipe(configuration(model_folder, tmp_path / "data"), tmp_path)
    assert [len(rows) for rows in (recipe.data.rows, recipe.valid, recipe.tested)] == [4, 2, 3]


def test_too_few_recordings_and_none(model_folder: Path, tmp_path: Path) -> None:
    data = recordings(tmp_path / "data", 4)
    with pytest.raises(ManifestError, match="has 4 recordings to train on; expected at least 5, and better 30"):
        WhisperLoraRecipe(configuration(model_folder, data), tmp_path)
    recordings(tmp_path / "data", language="de")
    with (
        pytest.warns(RuntimeWarning, match="8 recordings are left out"),
        pytest.raises(ManifestError, match=r"has 0 recordings.* 8 were left out: .* it is in 'de', not in 'en'"),
    ):
        WhisperLoraRecipe(configuration(model_folder, data), tmp_path)
    with pytest.raises(ConfigError, match="data: held_out: expected a share"):
        parse_config(WhisperLoraConfig, {"data": {"folder": str(data), "held_out": 1.0}})


@pytest.fixture(scope="module")
def mismatched(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, with more tokens than its tokenizer has."""
    loaded = load_whisper(model_folder)
    config = replace(loaded.config, n_vocab=loaded.config.n_vocab + 1)
    embedding = "decoder.token_embedding.weight"
    weights = loaded.weights | {embedding: torch.zeros(config.n_vocab, loaded.weights[embedding].shape[1])}
    folder = tmp_path_factory.mktemp("mismatched")
    save_whisper(folder, config, weights, loaded.tokenizer_files)
    return folder


def test_a_model_with_another_tokenizer_is_refused(mismatched: Path, tmp_path: Path) -> None:
    data = recordings(tmp_path / "data")
    source = {"train": {"set": {"manifest": str(data)}}, "test": {"set": {"manifest": str(data)}}}
    causal = parse_config(CausalWhisperConfig, {"model": str(mismatched), "data": source})
    options = WordTimesOptions(folder=str(tmp_path), aligner=str(mismatched))
    rows = [Utterance(str(data / "0.wav"), TEXTS[0], 1.0, id="set/0.wav", set="set")]
    for use in (
        lambda: WhisperLoraRecipe(configuration(mismatched, data), tmp_path),
        lambda: CausalWhisperRecipe(causal, tmp_path),
        lambda: WordTimes(options).prepare(rows),
    ):
        with pytest.raises(ValueError, match="they belong to different models"):
            use()


def passages(tokenizer: WhisperTokenizer, folder: Path, augment: AugmentOptions = STILL, **options: Any) -> PassageData:
    rows = [Utterance(str(folder / f"{number}.wav"), text, 1.0, str(number)) for number, text in enumerate(TEXTS)]
    chosen = PassageOptions(**options)
    return PassageData(rows, tokenizer, 6.0, 56, chosen, BatchOptions(12.0, 4, 2), augment, (), 1)


def test_windows_hold_every_recording_once_and_fit(tokenizer: WhisperTokenizer, tmp_path: Path) -> None:
    data = passages(tokenizer, recordings(tmp_path), AugmentOptions(padding_s=(0.0, 9.0)), joined=1.0, whole=0.5)
    for epoch in range(20):
        found = data.passages(epoch)
        assert sorted(number for one in found for number in one.utterances) == list(range(len(TEXTS)))
        assert all(one.duration <= 6.0 for one in found)
        assert found == data.passages(epoch)
    sizes = {data.collate(batch, 0)["samples"].shape[1] for batch in data.batches(0)}
    assert max(sizes) <= 6 * SAMPLE_RATE


@pytest.mark.parametrize("timestamps", [0.0, 1.0])
def test_the_text_of_a_window(tokenizer: WhisperTokenizer, tmp_path: Path, timestamps: float) -> None:
    data = passages(tokenizer, recordings(tmp_path), joined=1.0, pause_s=(0.5, 0.5), timestamps=timestamps)
    passage = next(one for one in data.passages(0) if len(one.utterances) > 1)
    samples, control, text = data.make(passage, 0)
    assert control == list(tokenizer.sot_sequence("en", timestamps=bool(timestamps)))
    assert len(samples) == round(passage.duration * SAMPLE_RATE)
    words = "".join(" " + TEXTS[number] for number in passage.utterances)
    assert tokenizer.decode(text) == words
    times = [tokenizer.timestamp_s(token) for token in text if token >= tokenizer.timestamp_begin]
    spans = [1.5 * at + end for at in range(len(passage.utterances)) for end in (0.0, 1.0)]
    assert times == (spans if timestamps else [])

    batch = data.collate([passage], 0)
    asked = batch["targets"] != NOTHING
    assert batch["targets"][asked].tolist() == [*text, tokenizer.eot]
    assert batch["tokens"][0].tolist() == [*control, *text]


def test_the_loss_is_the_cross_entropy_of_the_model(toy: Whisper, tokenizer: WhisperTokenizer, tmp_path: Path) -> None:
    data = passages(tokenizer, recordings(tmp_path), joined=0.5)
    batch = data.collate(data.batches(0)[0], 0)
    assert len(batch["samples"]) > 1
    module = TeacherForcingLoss(toy, SpecAugmentOptions()).eval()
    with torch.no_grad():
        loss, figures = module(batch)
        mel = normalize_window(WhisperLogMel()(batch["samples"]))
        scores = toy.decoder(batch["tokens"], toy.encoder(mel))
    expected = F.cross_entropy(scores.mT, batch["targets"], ignore_index=NOTHING)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    right = (scores.argmax(-1) == batch["targets"]).sum() / (batch["targets"] != NOTHING).sum()
    assert float(figures["accuracy"]) == pytest.approx(float(right))
    assert not np.isclose(float(module.train()(batch)[0]), float(loss))  # the features are masked


def test_the_configuration_that_comes_with_loquent(tmp_path: Path) -> None:
    run = read_run("whisper_lora", [f"data.folder={tmp_path}"])
    assert run.recipe is WhisperLoraRecipe
    assert run.config.data.folder == str(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.folder: missing"):
        read_run("whisper_lora")


def test_models_that_have_an_adapter_for_live_audio(toy: Whisper) -> None:
    checkpoint = load_whisper(resolve("tiny.en").path)
    model = Whisper.from_weights(checkpoint.config, checkpoint.weights)
    assert live_adapter(model, "en") == "loquent/live-tiny.en"
    assert live_adapter(model, "de") is None
    assert live_adapter(toy, "en") is None
