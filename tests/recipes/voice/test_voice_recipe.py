"""The recipe of the flow voice, in miniature: from sentences and a teacher to a voice."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from loquent.recipes.loop.config import ConfigError, parse_config
from loquent.recipes.train import read_run, train
from loquent.recipes.voice.corpus import Corpus
from loquent.recipes.voice.data import DataOptions, Shard, log_mel, prepare
from loquent.recipes.voice.prosody_part import batch_of, whole, window, word_starts
from loquent.recipes.voice.recipe import VoiceRecipe, VoiceRecipeConfig
from loquent.recipes.voice.teacher import Spoken, Teacher
from loquent.recipes.voice.texts import TextSource, made_up, read_texts
from loquent.tts.flow_voice.prosody import LEAD
from loquent.tts.flow_voice.voice import FlowVoice

pytest.importorskip("hibari", reason="hibari-tts, the teacher, is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime, which the teacher needs, is not installed")

SENTENCES = (
    *("The cat sat on the mat.", "A dog ran to the old mill, and then it slept.", "Is it five o'clock already?"),
    *("We walked along the river until night came over the hills.", "Nobody knew his name.", "Yes."),
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of two corpora, with translations beside them."""
    path = tmp_path_factory.mktemp("texts") / "pairs.tsv"
    lines = [f"{text}\tDas weiß ich nicht.\t{('good', 'other')[n % 2]}" for n, text in enumerate(SENTENCES * 150)]
    lines = [f"{n}: {line}" for n, line in enumerate(lines)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(texts: Path) -> DataOptions:
    """Options of two small shards, which are made."""
    source = TextSource(str(texts), 2, ("good",))
    options = DataOptions((source,), str(texts.parent / "data"), shards=2, utterances=5, recorded=1, valid=2)
    prepare(options)
    return options


def settings(data: DataOptions) -> dict[str, Any]:
    source = {"path": data.texts[0].path, "column": 2, "corpora": ["good"]}
    return {
        "data": {"texts": [source], "folder": data.folder, "shards": 2, "utterances": 5, "recorded": 1, "valid": 2},
        "prosody": {"channels": 16, "layers": 1, "heads": 2, "frame_channels": 8, "frame_layers": 1},
        "acoustic": {
            "features": 8,
            "phone_channels": 8,
            "phone_layers": 1,
            "channels": 8,
            "layers": 1,
            "conditions": 8,
            "estimator_channels": 16,
            "estimator_layers": 2,
            "attention": [1],
            "heads": 2,
        },
        "vocoder": {"channels": 16, "expansion": 2, "layers": 1},
        "batch": {"duration_s": 100, "utterances": 4, "buckets": 1},
    }


def recipe(data: DataOptions, folder: Path, part: str, **changes: Any) -> VoiceRecipe:
    return VoiceRecipe(parse_config(VoiceRecipeConfig, settings(data) | {"part": part} | changes), folder)


def test_sentences_are_those_that_can_be_read(texts: Path) -> None:
    texts.with_name("odd.txt").write_text("Ein Büro.\nSHOUTING AGAIN\nIt’s “fine” – really.\none two three four five\n")
    train_on, held_out = read_texts([TextSource(str(texts.with_name("odd.txt")))], (2, 4))
    assert train_on + held_out == ['It\'s "fine" — really.']
    train_on, held_out = read_texts([TextSource(str(texts), 2, ("good",))], (1, 30))
    assert len(held_out) == len(set(held_out))
    assert not set(train_on) & set(held_out)
    assert not any("dog" in text for text in train_on)  # of the other corpus
    assert len(read_texts([TextSource(str(texts), 2, ("good",), most=3)], (1, 30))[0]) <= 3


def test_made_up_sentences_are_filled_in() -> None:
    rng = random.Random(0)
    made = [made_up(rng, ("word", "other")) for _ in range(300)]
    assert not any("{" in text for text in made)
    assert len(set(made)) > 150
    assert all(text[-1] in ".?!" for text in made)


def test_a_speaker_made_of_the_teacher() -> None:
    teacher = Teacher()
    [phonemes] = teacher.phonemes("Yesterday evening, three tall men came home.")
    own, low = teacher.speak(phonemes, 0), teacher.speak(phonemes, 0, shift=0.8)
    for said in (own, low):
        assert isinstance(said, Spoken)
        units = int(said.durations.sum())
        assert said.durations.min() >= 1
        assert len(said.phones) == len(said.durations) == len(phonemes) + 2
        assert said.pitch.shape == said.energy.shape == (2 * units,)
        assert said.samples.shape == said.pulses.shape == (600 * units,)
    assert len(low.samples) / len(own.samples) == pytest.approx(1, abs=0.1)
    medians = [np.median(said.pitch[said.pitch > 0]) for said in (own, low)]
    assert medians[1] / medians[0] == pytest.approx(0.8, abs=0.04)
    fast = teacher.speak(phonemes, 0, speed=1.5)
    assert len(fast.samples) / len(own.samples) == pytest.approx(1 / 1.5, abs=0.1)


def test_shards_are_made_once_and_hold_what_was_said(data: DataOptions) -> None:
    train_on, valid = prepare(data)
    before = [path.stat().st_mtime_ns for path in (*train_on, valid)]
    train_on[1].unlink()
    prepare(data)
    assert [path.stat().st_mtime_ns for path in (train_on[0], valid)] == [before[0], before[2]]
    shard = Shard(train_on[0])
    teacher = Teacher()
    for index in range(len(shard)):
        row = shard[index]
        assert row.phones.tolist() == teacher.hibari.ids(row.phonemes)
        assert float(row.mixture.sum()) == pytest.approx(1)
        assert row.samples is not None
        assert len(row.samples) == 600 * int(row.durations.sum()) == 300 * len(row.mel)
        assert int(row.durations[0]) <= LEAD
        torch.testing.assert_close(log_mel(row.samples)[2:], row.mel[2:], atol=0.05, rtol=0.05)
    assert Shard(train_on[1])[0].samples is None


def test_windows_are_what_is_known_when_a_word_is_spoken(data: DataOptions) -> None:
    train_on, _ = prepare(data)
    corpus = Corpus(train_on)
    row = replace(max((corpus[n] for n in range(len(corpus))), key=lambda one: len(one.phones)), tempo=1.0)
    space = 16
    words = word_starts(row.phones, space)
    assert len(words) == row.phonemes.count(" ") + 1
    for word in range(len(words)):
        example = window(row, words, word)
        phones = row.phones[example.begin : example.end]
        closes = word + 2 >= len(words) - 1
        assert (phones == space).sum() == min(word, 8) + min(2, len(words) - 1 - word)
        assert (phones[0] == 0) == (word <= 8)
        assert (phones[-1] == 0) == closes
        spoken = range(words[word], words[word + 1] if word + 1 < len(words) else len(row.phones))
        assert example.counted[[place - example.begin for place in spoken]].all()
        assert example.counted[-1] == closes
    batch = batch_of([window(row, words, 0), whole(row)], reach=3)
    assert batch["frame_counted"][1].sum() == row.durations.sum()
    assert batch["frame_present"].sum() >= batch["frame_counted"].sum()


def test_parts_learn(data: DataOptions, tmp_path: Path) -> None:
    for part, rate in (("prosody", 1e-2), ("flow", 1e-2), ("vocoder", 3e-3)):
        made = recipe(data, tmp_path, part)
        optimizer = torch.optim.Adam(made.module.parameters(), lr=rate)
        batch = made.collate(made.batches(0, 0, 1)[0], 0)
        losses = []
        for _ in range(15):
            torch.manual_seed(0)
            loss, figures = made.module(batch)
            assert figures
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.9 * losses[0], part


def test_padding_changes_nothing(data: DataOptions, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, "flow")
    rows = sorted(range(10), key=lambda n: made.part.corpus[n].phones.shape[0])
    alone, among = (made.part.collate(some, 0) for some in ([rows[0]], [rows[0], rows[-1]]))
    frames = alone["curves"].shape[1]
    with torch.no_grad():
        one, both = (made.module._conditions(batch) for batch in (alone, among))
        torch.testing.assert_close(both[:1, :frames], one, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one, made.nets.acoustic.conditioner(_frames(made, alone)), atol=1e-5, rtol=1e-4)


def _frames(made: VoiceRecipe, batch: Any) -> torch.Tensor:
    from loquent.recipes.voice.flow_part import frames_of

    return frames_of(made.nets.acoustic, batch)


def test_a_miniature_of_all_stages(data: DataOptions, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    quick = {"steps": 2, "warmup": 1, "evaluate_every": 2, "learning_rate": 1e-3}
    stages = [{"part": "prosody", "training": quick}, {"part": "flow", "training": quick}]
    values = settings(data) | {"recipe": "voice", "part": "vocoder", "hears": "flow", "training": quick}
    config = tmp_path / "voice.yaml"
    config.write_text(json.dumps(values | {"stages": stages}))
    figures = train(str(config), [], str(tmp_path / "run"))
    assert figures is not None
    assert {"spectral", "complex", "log_power"} <= set(figures)
    voice = FlowVoice.load(tmp_path / "run" / "best")
    first = FlowVoice.load(tmp_path / "run" / "stage-1" / "best")
    assert voice.speakers == ("alto", "baritone")
    for mine, theirs in zip(voice.nets.prosody.parameters(), first.nets.prosody.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(voice.nets.acoustic.mean, torch.zeros(80))
    assert (tmp_path / "run" / "stage-2" / "curve.svg").is_file()


def test_the_vocoder_begins_with_the_layers_of_its_teacher(data: DataOptions, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ from those of hibari's decoder"):
        recipe(data, tmp_path, "vocoder", warm_start=True)
    cold = recipe(data, tmp_path, "vocoder", vocoder={})
    warm = recipe(data, tmp_path, "vocoder", vocoder={}, warm_start=True)
    batch = warm.collate([0, 1], 0)
    with torch.no_grad():
        assert float(warm.module(batch)[1]["complex"]) < float(cold.module(batch)[1]["complex"])


def test_a_start_of_another_shape_is_refused(data: DataOptions, tmp_path: Path) -> None:
    recipe(data, tmp_path, "flow").save(tmp_path / "voice")
    recipe(data, tmp_path, "flow", start=str(tmp_path / "voice"))
    with pytest.raises(ConfigError, match="has another shape"):
        recipe(data, tmp_path, "flow", start=str(tmp_path / "voice"), vocoder={"channels": 8, "layers": 1})


def test_the_shipped_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_DATA", "data")
    run = read_run("voice")
    assert [stage.config.part for stage in (*run.stages, run)] == ["prosody", "flow", "vocoder", "vocoder"]
