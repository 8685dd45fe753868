"""The Conformer recipe, in miniature: it learns a few seconds of the sample by heart, from configuration to model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from loquent.asr.conformer.model import ConformerModel
from loquent.recipes.conformer.intermediate_ctc import LETTERS, IntermediateCTC, IntermediateCTCOptions, letter_targets
from loquent.recipes.conformer.recipe import ConformerRecipe, ConformerRecipeConfig
from loquent.recipes.data.augment import AugmentOptions
from loquent.recipes.data.dataset import padded, read_noises, whole_batches
from loquent.recipes.data.manifest import SAMPLE_RATE, ManifestError, read_manifest
from loquent.recipes.loop.config import ConfigError, parse_config
from loquent.recipes.loop.training import Training, TrainingOptions
from loquent.recipes.train import train
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.commands.cli import main

SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"
TEXTS = ("one", "two three", "four", "one two", "three four", "two", "four one", "three")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of the sample for each text, with the same manifest for all splits; and a little noise."""
    folder = tmp_path_factory.mktemp("data")
    samples = read_audio(SAMPLE, SAMPLE_RATE).samples
    rows = []
    for number, text in enumerate(TEXTS):
        start = round((0.3 + 0.8 * number) * SAMPLE_RATE)
        write_audio(folder / f"{number}.wav", samples[start : start + SAMPLE_RATE], SAMPLE_RATE)
        rows.append({"path": f"{number}.wav", "text": text, "duration": 1.0})
    lines = [json.dumps(row | {"split": split}) for split in ("train", "valid", "eval") for row in rows]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    (folder / "noise").mkdir()
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE) * 0.1
    write_audio(folder / "noise" / "noise.wav", noise.astype(np.float32), SAMPLE_RATE)
    write_audio(folder / "noise" / "silence.wav", np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE)
    return folder


def settings(folder: Path) -> dict[str, Any]:
    source = {"set": {"manifest": str(folder)}}
    return {
        "data": {"train": source, "valid": source, "test": source},
        "tokenizer": {"size": 20, "kind": "char"},
        "encoder": {
            "n_mels": 24,
            "dim": 32,
            "layers": 2,
            "heads": 2,
            "conv_kernel": 3,
            "subsampling_channels": 8,
            "left_context": 8,
            "lookaheads": [3, 1],
            "dropout": 0.0,
        },
        "transducer": {"predictor": "stateless", "predictor_dim": 16, "joint_dim": 32, "dropout": 0.0},
        "batch": {"duration_s": 8, "utterances": 4, "buckets": 1},
        "augment": {"speed": [0.98, 1.02], "padding_s": [0.0, 0.05], "noises": str(folder / "noise"), "noise": 0.2},
        "spec_augment": {"frequency_masks": 0, "time_masks": 0},
        "ctc_only": 4,
    }


def recipe(recordings: Path, folder: Path, **changes: Any) -> ConformerRecipe:
    return ConformerRecipe(parse_config(ConformerRecipeConfig, settings(recordings) | changes), folder)


def test_a_miniature_learns(data: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    made = recipe(data, tmp_path)
    options = TrainingOptions(
        steps=80, learning_rate=5e-3, warmup=10, schedule="constant", average=0.8, log_every=10, evaluate_every=40
    )
    figures = Training(made, options, tmp_path, {}).run()
    losses = [line["loss"] for line in _curve(tmp_path) if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    assert figures is not None
    names = [f"set/{head}/{latency}ms" for head in ("ctc", "transducer") for latency in (160, 320)]
    delays = [f"{name}/delay_{which}_ms" for name in names for which in ("mean", "p50", "p95")]
    assert set(figures) == {"wer", *names, *delays}
    model, tokenizer = ConformerModel.from_pretrained(tmp_path / "best")
    assert model.config.fixed_statistics
    assert tokenizer.decode(tokenizer.encode("two three")) == "two three"


def test_statistics_are_those_of_the_training_data(data: Path, tmp_path: Path) -> None:
    made = recipe(data, tmp_path)
    samples, length = padded(made.data.rows)
    mel, _ = made.model.log_mel(samples, length)
    assert mel.mean(dim=(0, 1)).abs().max() < 0.6
    assert mel.std(dim=(0, 1)).sub(1).abs().max() < 0.5


def test_batches_follow_from_the_epoch(data: Path, tmp_path: Path) -> None:
    first, second = recipe(data, tmp_path / "a"), recipe(data, tmp_path / "b")
    for epoch in (0, 1):
        items = first.batches(epoch, 0, 1)
        assert items == second.batches(epoch, 0, 1)
        for one, other in zip(
            first.collate(items[0], epoch).values(), second.collate(items[0], epoch).values(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    before, after = first.collate([0], 0)["samples"], first.collate([0], 1)["samples"]
    assert before.shape != after.shape or not torch.equal(before, after)


def test_the_tokenizer_stays_with_the_run(data: Path, tmp_path: Path) -> None:
    made = recipe(data, tmp_path)
    assert made.tokenizer.to_bytes() == (tmp_path / "tokenizer.model").read_bytes()
    again = recipe(data, tmp_path, tokenizer={"size": 12, "kind": "bpe"})
    assert again.tokenizer.vocab_size == made.tokenizer.vocab_size


def test_silence_before_the_recordings_to_measure_with(data: Path, tmp_path: Path) -> None:
    base = settings(data)
    valid = {"set": base["data"]["valid"]["set"], "later": base["data"]["valid"]["set"] | {"silence_s": 0.3}}
    made = recipe(data, tmp_path, data=base["data"] | {"valid": valid})
    for at_once, later in zip(made.valid["set"], made.valid["later"], strict=True):
        silence, rest = np.split(later.samples(), [4800])
        assert not silence.any()
        np.testing.assert_array_equal(rest, at_once.samples())
    assert {"set/ctc/160ms", "later/ctc/160ms"} <= set(made.evaluate())
    with pytest.raises(ConfigError, match=r"data.valid.set: silence_s: expected a number of at least 0"):
        recipe(data, tmp_path, data=base["data"] | {"valid": {"set": {"silence_s": -1}}})


def test_ctc_alone(data: Path, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, transducer=None, ctc_weight=1.0)
    loss, figures = made.module(made.collate([0, 1], 0))
    assert torch.equal(loss.detach(), figures["ctc"])
    assert set(made.evaluate()) == {"wer", "set/ctc/160ms", "set/ctc/320ms"}
    for changes in ({"transducer": None}, {"ctc_weight": 1.0}, {"ctc_weight": 0.0}):
        with pytest.raises(ConfigError, match="ctc_weight"):
            recipe(data, tmp_path, **changes)


def test_the_transducer_joins_after_the_first_batches(data: Path, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, ctc_only=1)
    batch = made.collate([0, 1], 0)
    assert set(made.module(batch)[1]) == {"ctc"}
    assert set(made.module(batch)[1]) == {"ctc", "transducer"}


def test_frozen_layers_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    before = recipe(data, tmp_path / "before")
    before.save(tmp_path / "start")
    made = recipe(data, tmp_path, start=str(tmp_path / "start"), frozen_layers=1)
    Training(made, TrainingOptions(steps=5, learning_rate=1e-2, warmup=1, average=0.5), tmp_path, {}).train()
    was, weights = before.model.state_dict(), ConformerModel.from_pretrained(tmp_path / "best")[0].state_dict()
    changed = {name for name, weight in weights.items() if not torch.equal(weight, was[name])}
    frozen = ("encoder.subsampling.", "encoder.layers.0.")
    assert not any(name.startswith(frozen) for name in changed)
    assert {name.rpartition(".")[0] for name in changed} >= {"ctc.out", "encoder.layers.1.feed_forward1.linear1"}
    with pytest.raises(ConfigError, match="frozen_layers goes with start"):
        recipe(data, tmp_path / "new", frozen_layers=1)
    with pytest.raises(ConfigError, match=r"frozen_layers must be .* encoder\.layers=2, got 3"):
        recipe(data, tmp_path / "new", frozen_layers=3)


def test_noise_comes_from_folders(data: Path) -> None:
    assert len(read_noises(AugmentOptions(noises=str(data / "noise")))) == 1  # silence is none
    for wrong in ({"noises": str(data / "nothing")}, {"noises": str(data / "noise"), "noises_kept_back": "*noise.wav"}):
        with pytest.raises(ManifestError, match="no noise in"):
            read_noises(AugmentOptions(**wrong))


def test_sources_without_rows_are_refused_unless_none_are_drawn(data: Path, tmp_path: Path) -> None:
    known, source = {"set": {"manifest": str(data)}}, {"manifest": str(data), "kind": "bread"}
    with pytest.raises(ManifestError, match="no rows for"):
        recipe(data, tmp_path, data={"train": known | {"bread": source}, "valid": known, "test": known})
    without = known | {"bread": source | {"weight": 0}}
    made = recipe(data, tmp_path, data={"train": without, "valid": known, "test": known})
    assert len(made.data.rows) == len(TEXTS)


def test_batches_for_evaluation_have_everything(data: Path) -> None:
    rows = read_manifest(data)
    batches = whole_batches(rows, 3.5)
    assert sorted(row.path for batch in batches for row in batch) == sorted(row.path for row in rows)
    assert {len(batch) for batch in batches} == {3}


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "recipe": "conformer",
        "training": {"steps": 4, "warmup": 1, "log_every": 1},
        "stages": [{"ctc_only": 9, "training": {"steps": 2}}],
        **settings(data),
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    arguments = ["train", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "run")]
    command = [sys.executable, "-m", "loquent.speech", *arguments, "batch.utterances=3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "wer" in json.loads(done.stdout)
    assert "4/4" in done.stderr
    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()
    told = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert told["batch"]["utterances"] == 3
    assert told["start"] == str(tmp_path / "run" / "stage-1" / "best")

    assert main([*arguments, "training.stepz=3"]) == 1
    assert "training.stepz: unknown; did you mean steps? expected one of " in capsys.readouterr().err


def test_a_run_may_be_the_mean_of_its_stages(data: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    stage = {"training": {"steps": 2, "warmup": 1}}
    config = {
        "recipe": "conformer",
        "training": {"steps": 0},
        "stages": [stage, stage | {"seed": 2}],
        "mean_of": {"stage-1": 1, "stage-2": 3},
        **settings(data),
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    figures = train(str(tmp_path / "tiny.yaml"), [], str(tmp_path / "run"))
    assert figures is not None
    assert "wer" in figures
    first, second, mean = (
        ConformerModel.from_pretrained(tmp_path / "run" / name / "best")[0].state_dict()
        for name in ("stage-1", "stage-2", ".")
    )
    weight = "encoder.layers.0.feed_forward1.linear1.weight"
    assert not torch.equal(first[weight], second[weight])
    torch.testing.assert_close(mean[weight], 0.25 * first[weight] + 0.75 * second[weight])
    with pytest.raises(ConfigError, match="mean_of goes with at least one model"):
        recipe(data, tmp_path, mean_of={"a": 0})


def test_an_encoder_learns_from_a_teacher_without_texts(data: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    made = recipe(data, tmp_path, auxiliary={"distillation": {"teacher": "tiny.en"}, "alone": True})
    assert made.judged_by == "distance"
    assert not [name for name, _ in made.module.named_parameters() if "teacher" in name]
    options = TrainingOptions(steps=30, learning_rate=5e-3, warmup=5, schedule="constant", average=0.8, log_every=10)
    assert Training(made, options, tmp_path, {}).train()
    assert "valid/distance" in _curve(tmp_path)[-1]
    distances = [line["distance"] for line in _curve(tmp_path) if "distance" in line]
    assert distances[-1] < 0.9 * distances[0]
    taught = {"start": str(tmp_path / "best"), "auxiliary": {"distillation": {"weight": 0.5}}}
    following = recipe(data, tmp_path / "next", **taught)
    kept = {name: value.clone() for name, value in following.module.state_dict().items()}
    again = recipe(data, tmp_path / "again", **taught)
    torch.testing.assert_close(again.module.state_dict(), kept, rtol=0, atol=0)  # the teacher's projection is taken on
    batch = following.collate([0, 1], 0)
    loss, figures = following.module(batch | {"clean": batch["clean"].clone()})
    assert set(figures) == {"ctc", "distance"}
    torch.testing.assert_close(loss.detach(), figures["ctc"] + 0.5 * figures["distance"])


def test_an_encoder_learns_letters_by_intermediate_ctc(data: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    made = recipe(data, tmp_path, auxiliary={"intermediate_ctc": {"weight": 0.5}})
    options = TrainingOptions(steps=50, learning_rate=5e-3, warmup=10, schedule="constant", average=0.8, log_every=10)
    assert Training(made, options, tmp_path, {}).train()
    losses = [line["intermediate_ctc"] for line in _curve(tmp_path) if "intermediate_ctc" in line]
    assert losses[-1] < 0.6 * losses[0]


def test_letters_of_a_text() -> None:
    def spell(text: str) -> str:
        return "".join(LETTERS[at] for at in letter_targets(text).tolist())

    assert spell("Well — (sighs) I don't KNOW, do you?") == "well i don't know do you"
    assert spell("Chapter 1") == spell("naïve") == spell("...") == ""


def test_recordings_without_letters_are_ignored() -> None:
    loss = IntermediateCTC(IntermediateCTCOptions(), 16)
    frames, length = torch.randn(3, 9, 16), torch.tensor([9, 5, 7])
    letters, count = torch.tensor([[7, 4, 11], [0, 0, 0], [1, 8, 0]]), torch.tensor([3, 0, 2])
    both = loss(frames, length, letters, count)
    alone = [
        loss(frames[at : at + 1], length[at : at + 1], letters[at : at + 1], count[at : at + 1]) for at in range(3)
    ]
    torch.testing.assert_close(both, (3 * alone[0] + 2 * alone[2]) / 5)
    assert alone[1] == 0


def test_auxiliary_losses_train_the_layers_below_them_only(data: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    auxiliary = {"distillation": {"teacher": "tiny.en"}, "intermediate_ctc": {}}
    taught = recipe(data, tmp_path, auxiliary=auxiliary | {"alone": True})
    taught.save(tmp_path / "taught")
    shape = settings(data)["encoder"] | {"layers": 3}
    more = {"encoder": shape, "start": str(tmp_path / "taught")}
    grown = recipe(data, tmp_path / "grown", auxiliary=auxiliary | {"layer": 2}, **more)
    own, old = grown.model.state_dict(), taught.model.state_dict()
    torch.testing.assert_close({name: own[name] for name in old}, old, rtol=0, atol=0)
    assert {name.split(".")[2] for name in own.keys() - old.keys()} == {"2"}

    torch.testing.assert_close(grown.loss.auxiliary.state_dict(), taught.loss.auxiliary.state_dict(), rtol=0, atol=0)
    alone = recipe(data, tmp_path / "alone", auxiliary=auxiliary | {"layer": 2, "alone": True}, **more)
    alone.module(alone.collate([0, 1], 0))[0].backward()
    trained = {name for name, weight in alone.model.named_parameters() if weight.grad is not None}
    assert {name.split(".")[2] for name in trained if name.startswith("encoder.layers.")} == {"0", "1"}
    with pytest.raises(ConfigError, match=r"auxiliary\.layer must be from 1 to encoder.layers=3, got 4"):
        recipe(data, tmp_path / "wrong", auxiliary=auxiliary | {"layer": 4}, **more)
    with pytest.raises(ConfigError, match="goes with distillation, intermediate_ctc or both"):
        recipe(data, tmp_path / "wrong", auxiliary={"layer": 1})
    with pytest.raises(ConfigError, match="alone=true goes with distillation"):
        recipe(data, tmp_path / "wrong", auxiliary={"intermediate_ctc": {}, "alone": True})


def test_a_teacher_hears_what_was_said_before_the_noise(data: Path, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, augment={"speed": [0.9, 1.1], "noise": 1.0, "noise_snr_db": [0.0, 0.0]})
    batch = made.collate([0, 1], 0)
    assert batch["clean"].shape == batch["samples"].shape
    assert not torch.equal(batch["clean"], batch["samples"])
    quiet = recipe(data, tmp_path, augment={"speed": [0.9, 1.1], "gain_db": [0.0, 0.0]})
    heard = quiet.collate([0, 1], 0)
    torch.testing.assert_close(heard["clean"], heard["samples"])
    torch.testing.assert_close(heard["clean"], batch["clean"])


def test_sources_without_texts_train_auxiliary_losses_only(data: Path, tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    row = {"path": str(data / "0.wav"), "text": "ξένος", "duration": 1.0, "split": "train"}
    (tmp_path / "strange" / "manifest.jsonl").write_text(json.dumps(row))
    source, strange = {"manifest": str(data)}, {"manifest": str(tmp_path / "strange"), "texts": False}
    where = {"train": {"set": source, "strange": strange}, "valid": {"set": source}, "test": {"set": source}}
    made = recipe(data, tmp_path, data=where, auxiliary={"distillation": {}}, tokenizer={"size": 24, "kind": "char"})
    assert "ξ" not in made.tokenizer.decode(made.tokenizer.encode("ξένος"))
    made.module.eval()
    losses = []
    for items in ([0, 1], [0, len(TEXTS), 1], [len(TEXTS)]):
        torch.manual_seed(0)  # the same look-ahead
        losses.append(made.module(made.collate(items, 0))[1])
    torch.testing.assert_close(losses[0]["ctc"], losses[1]["ctc"])  # the third row changes nothing about the texts
    assert set(losses[2]) == {"distance"}
    for sources, auxiliary in (
        ({"set": strange}, {"intermediate_ctc": {}}),
        ({"set": source, "strange": strange}, None),
    ):
        with pytest.raises(ConfigError, match="texts=false goes with auxiliary"):
            recipe(data, tmp_path, data=where | {"train": sources}, auxiliary=auxiliary)


def _curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
