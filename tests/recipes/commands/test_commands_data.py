"""The data of the commands model, made from a miniature of its sources."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zipfile
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from loquent.recipes.commands.an4 import read_an4
from loquent.recipes.commands.data import CommandsDataOptions, _clips, _cut, prepare, trim
from loquent.recipes.commands.phone_numbers import SAID_OTHERWISE, read_phone_numbers
from loquent.recipes.commands.recipe import CommandsRecipe
from loquent.recipes.commands.speech_commands import read_speech_commands
from loquent.recipes.conformer.recipe import ConformerRecipe
from loquent.recipes.data.manifest import SAMPLE_RATE, ManifestError, read_manifest
from loquent.recipes.data.synthetic_voices import FliteVoice, HibariVoice, KokoroVoice
from loquent.recipes.loop.config import ConfigError, parse_config

RNG = np.random.default_rng(0)
NOTHING_MADE: dict[str, Any] = {field.name: 0 for field in fields(CommandsDataOptions) if field.type == "int"}


def voiced(before: float, sound: float, after: float) -> np.ndarray:
    quiet = 1e-4 * RNG.standard_normal(round((before + sound + after) * SAMPLE_RATE))
    start = round(before * SAMPLE_RATE)
    quiet[start : start + round(sound * SAMPLE_RATE)] += 0.3 * np.sin(np.arange(round(sound * SAMPLE_RATE)) / 8)
    return quiet.astype(np.float32)


def test_trimming_keeps_margins() -> None:
    samples = voiced(1.0, 0.5, 2.0)
    assert len(trim(samples, 0.1, 0.2)) / SAMPLE_RATE == pytest.approx(0.8, abs=0.04)
    np.testing.assert_array_equal(trim(samples, 5, 5), samples)
    for short in (samples[:0], samples[:100]):
        np.testing.assert_array_equal(trim(short, 0.1, 0.1), short)


def archive(path: Path, rows: list[dict[str, Any]], samples: np.ndarray) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for row in rows:
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC")
            file.writestr(row["path"], buffer.getvalue())
        file.writestr("manifest.jsonl", "".join(json.dumps({"duration": 1.0} | row) + "\n" for row in rows))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Zip archives named as the real ones."""
    folder = tmp_path / "speech"
    folder.mkdir()
    label = {"slots": {"coffeeDrink": "mocha", "roast": "light roast"}}
    orders = [
        {"path": f"{n}.flac", "text": text, "split": split, "slot_match": match, "label": label}
        for n, (text, split, match) in enumerate(
            [
                ("Brue a light rose mocker.", "train", 0.3),
                ("Give me a light roast mocha.", "train", 1.0),
                ("Get me a light roast mocha.", "eval", 1.0),
                ("Get me a light rose mocha.", "eval", 0.5),
            ]
        )
    ]
    archive(folder / "picovoice_coffee.zip", orders, voiced(1.0, 0.5, 1.0))
    digits = [
        {"path": f"{speaker}{n}.flac", "text": text, "speaker": speaker, "split": split}
        for speaker, split in (("ann", "train"), ("bob", "train"), ("cy", "eval"))
        for n, text in enumerate(["one", "two", "three"] * 5)
    ]
    archive(folder / "fsdd.zip", digits, voiced(0.05, 0.2, 0.05))
    sentences = [
        {"path": "0.flac", "text": "Five, six!", "speaker": "dee", "split": "train"},
        {"path": "1.flac", "text": "Five apples", "speaker": "dee", "split": "train"},
        {"path": "2.flac", "text": "seven", "speaker": "eve", "split": "eval"},
    ]
    archive(folder / "speechocean762.zip", sentences, voiced(0.2, 0.4, 0.2))
    return folder


def test_preparation(sources: Path, tmp_path: Path) -> None:
    options = CommandsDataOptions(
        str(sources),
        str(tmp_path / "made"),
        words=(),
        strings=40,
        voices=60,
        synthetic_coffee=2,
        synthetic_digits=2,
        flite_coffee=0,
        flite_digits=0,
        kokoro_coffee=0,
        kokoro_digits=0,
    )
    rows = prepare(options)
    by_kind: dict[str, list[Any]] = {}
    for row in rows:
        by_kind.setdefault(row.extra["kind"], []).append(row)
        assert len(row.samples()) / SAMPLE_RATE == pytest.approx(row.duration, abs=1e-3)

    coffee = by_kind["coffee"]
    assert [(row.text, row.split == "eval") for row in coffee] == [
        ("brew a light roast mocha", False),
        ("give me a light roast mocha", False),
        ("get me a light roast mocha", True),
    ]
    assert coffee[2].duration == 2.5  # as it was recorded
    assert {row.split for row in by_kind["digits"]} == {"train", "valid", "eval"}
    assert all((row.speaker == "cy") == (row.split == "eval") for row in by_kind["digits"] + by_kind["strings"])
    assert len(by_kind["strings"]) == 40 + 2 + 2
    assert all(2 <= len(row.text.split()) <= 6 for row in by_kind["strings"])
    voices = by_kind["voices"]
    assert len(voices) == 60
    assert {row.split for row in voices} == {"train"}
    assert {len(row.text.split()) for row in voices} == {1, 2, 3, 4, 5, 6}
    said = [word for row in voices for word in row.text.split()]
    assert all(said.count(word) > len(said) / 5 for word in ("one", "two", "three"))
    again = [one == other for row in voices for one, other in pairwise(row.text.split())]
    assert 0.35 < np.mean(again) < 0.65  # 0.25, and a third of the rest by chance
    assert [(row.text, row.split) for row in by_kind["speakers"]] == [("five six", "train"), ("seven", "valid")]
    assert len(by_kind["synthetic_coffee"]) == 2
    assert len(by_kind["synthetic_digits"]) == 2
    assert all(0.3 < row.duration < 12 for row in by_kind["synthetic_coffee"])


@pytest.fixture(scope="module")
def hibari() -> HibariVoice:
    return HibariVoice()


@pytest.fixture(scope="module")
def an4(tmp_path_factory: pytest.TempPathFactory, hibari: HibariVoice) -> Path:
    """A miniature of AN4: what it says, in which of its splits."""
    folder = tmp_path_factory.mktemp("an4")
    said = {
        "train": {
            "an251-fash-b": "GO",
            "cen7-fash-b": "TWO SIX EIGHT",
            "cen8-fbbh-b": "C Z NINE",
            "cen9-fbbh-b": "ENTER TWO SIX",
        },
        "test": {"cen1-mjgm-b": "FOUR OH TWO", "cen2-mjgm-b": "FOUR TWO"},
    }
    (folder / "etc").mkdir(parents=True)
    for split, lines in said.items():
        for name, text in lines.items():
            place = folder / "wav" / f"an4_{split}" / name.split("-")[1]
            place.mkdir(parents=True, exist_ok=True)
            soundfile.write(place / f"{name}.wav", hibari(text.lower(), random.Random(0)), SAMPLE_RATE)
        written = "".join(f"<s> {text} </s> ({name})\n" for name, text in lines.items())
        (folder / "etc" / f"an4_{split}.transcription").write_text(written, encoding="utf-8")
    return folder


def test_an4_has_strings_and_words(sources: Path, an4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where word times are kept
    rows = read_an4(an4)
    assert [(row.text, row.speaker, row.split) for row in rows[:2]] == [
        ("go", "fash", "train"),
        ("two six eight", "fash", "train"),
    ]
    assert rows[0].duration == pytest.approx(len(rows[0].samples()) / SAMPLE_RATE)
    made = prepare(CommandsDataOptions(str(sources), str(tmp_path / "made"), words=(), an4=str(an4), **NOTHING_MADE))
    of_an4 = [row for row in made if row.extra.get("source") == "an4"]
    strings = [(row.text, row.split) for row in of_an4 if row.extra["kind"] == "speakers"]
    assert strings == [("two six eight", "train"), ("four two", "valid"), ("two six", "train")]
    words = [(row.text, row.speaker) for row in of_an4 if row.extra["kind"] == "words"]
    assert ("nine", "fbbh") in words
    in_strings = {(word, "fash") for word in ("two", "six", "eight")} | {(word, "fbbh") for word in ("two", "six")}
    assert {("two", "fash"), ("two", "fbbh")} <= set(words) - {("nine", "fbbh")} <= in_strings  # where it is quiet
    assert {row.extra["licence"] for row in of_an4} == {"BSD-like"}


def test_a_folder_that_is_not_an4_is_refused_at_once(an4: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nothing/etc/.*: expected a copy of"):
        prepare(
            CommandsDataOptions(str(tmp_path), str(tmp_path / "made"), an4=str(tmp_path / "nothing"), **NOTHING_MADE)
        )
    copy = shutil.copytree(an4, tmp_path / "an4")
    next(copy.rglob("cen7-fash-b.wav")).unlink()
    with pytest.raises(ManifestError, match=r"no recording for the line '<s> TWO SIX EIGHT </s> \(cen7-fash-b\)'"):
        read_an4(copy)


@pytest.fixture
def phone_numbers(tmp_path: Path) -> Path:
    """A miniature of the alphanumeric audio dataset."""
    folder = tmp_path / "alphanumeric"
    (folder / "audio_data" / "Numbers").mkdir(parents=True)
    lines = ["Response_ID,file_name,Number"]
    for speaker, number in (("R_a", "202555014"), ("R_g", "12345678"), ("R_c", "9"), (min(SAID_OTHERWISE), "77")):
        lines += [f"{speaker},audio_data/{what}/{speaker}.wav,{number}" for what in ("Names", "Numbers")]
        samples = np.stack([voiced(0.1, 1.0, 0.1)] * 2, axis=1)
        soundfile.write(folder / "audio_data" / "Numbers" / f"{speaker}.wav", samples, SAMPLE_RATE)
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_telephone_numbers_are_strings_of_many_speakers(sources: Path, phone_numbers: Path, tmp_path: Path) -> None:
    rows = read_phone_numbers(phone_numbers)
    assert [(row.text, row.speaker) for row in rows] == [
        ("zero two zero two five five five zero one four", "R_a"),  # a spreadsheet took its zero
        ("one two three four five six seven eight", "R_g"),
        ("nine", "R_c"),
    ]
    assert rows[0].duration == pytest.approx(len(rows[0].samples()) / SAMPLE_RATE)
    options = CommandsDataOptions(str(sources), str(tmp_path / "made"), words=(), **NOTHING_MADE)
    made = prepare(replace(options, phone_numbers=str(phone_numbers)))
    strings = [row for row in made if row.extra.get("licence") == "MIT"]
    assert [row.text for row in strings] == [row.text for row in rows]
    assert {row.extra["kind"] for row in strings} == {"speakers"}
    assert [row.split == "train" for row in strings] == [row.split == "train" for row in rows]

    (phone_numbers / "audio_data" / "Numbers" / "R_c.wav").unlink()
    with pytest.raises(ManifestError, match=r"metadata.csv: no recording '.*R_c.wav'"):
        read_phone_numbers(phone_numbers)
    with pytest.raises(ManifestError, match=r"no '.*metadata.csv': expected a copy of https"):
        read_phone_numbers(tmp_path)


def test_speech_commands_have_speakers_of_their_own_in_each_split(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "commands"
    speakers = [f"{number:08x}" for number in range(40)]
    for word in "zero one two three four five six seven eight nine bird".split():
        (folder / word).mkdir(parents=True)
        for speaker in speakers[: 40 if word == "two" else 3]:
            loud = 1e-3 if (word, speaker) == ("six", speakers[0]) else 1
            soundfile.write(
                folder / word / f"{speaker}_nohash_0.wav", loud * voiced(0.3, 0.4, 0.3), SAMPLE_RATE, subtype="PCM_16"
            )
    rows = read_speech_commands(folder, each=30)
    assert [sum(row.text == word for row in rows) for word in ("zero", "two", "bird")] == [3, 30, 0]
    kept_back = {row.speaker for row in rows if row.split == "eval"}
    assert kept_back
    assert not kept_back & {row.speaker for row in rows if row.split == "train"}

    options = CommandsDataOptions(str(sources), str(tmp_path / "made"), words=(), **NOTHING_MADE)
    made = prepare(replace(options, speech_commands=str(folder), speech_commands_each=30, voices=50))
    single = [row for row in made if row.extra["kind"] == "speech_commands"]
    assert len(single) == len(rows) - 1  # one is all but silent
    assert all((row.speaker in kept_back) == (row.split == "valid") for row in single)
    assert "seven" in {word for row in made if row.extra["kind"] == "voices" for word in row.text.split()}

    shutil.rmtree(folder / "nine")
    with pytest.raises(ManifestError, match=r"no recordings in '.*nine': expected Speech Commands"):
        read_speech_commands(folder, each=1)


def test_prepared_data_is_used_again_unless_options_change(sources: Path, tmp_path: Path) -> None:
    options = CommandsDataOptions(
        str(sources),
        str(tmp_path / "made"),
        words=(),
        strings=20,
        voices=0,
        synthetic_coffee=1,
        synthetic_digits=0,
        flite_coffee=0,
        flite_digits=0,
        kokoro_coffee=0,
        kokoro_digits=0,
    )
    before = prepare(options)
    stamp = (tmp_path / "made" / "manifest.jsonl").stat().st_mtime_ns
    assert prepare(options) == before
    assert (tmp_path / "made" / "manifest.jsonl").stat().st_mtime_ns == stamp
    fewer = prepare(replace(options, strings=0))
    assert not [row for row in fewer if row.extra["kind"] == "strings"]


def test_the_recipe_trains_on_the_kinds_that_are_made(sources: Path, tmp_path: Path) -> None:
    made = {"data": str(sources), "folder": str(tmp_path / "made"), "words": [], **NOTHING_MADE, "strings": 20}
    values = {
        "data": {
            "commands": made,
            "train": {kind: {"kind": kind} for kind in ("coffee", "strings", "voices")},
            "valid": {"coffee": {"kind": "coffee", "split": "eval"}},
            "test": {"digits": {"kind": "digits"}},
        },
        "tokenizer": {"size": 24, "kind": "char"},
        "encoder": {"n_mels": 24, "dim": 32, "layers": 1, "heads": 2, "conv_kernel": 3, "subsampling_channels": 8},
        "transducer": None,
        "ctc_weight": 1.0,
    }
    recipe = CommandsRecipe(parse_config(CommandsRecipe.Config, values), tmp_path / "run")
    assert {row.extra["kind"] for row in recipe.data.rows} == {"coffee", "strings"}  # of voices there are none
    assert [row.text for row in recipe.valid["coffee"]] == ["get me a light roast mocha"]
    assert {row.speaker for row in recipe.held_out["digits"]} == {"cy"}
    assert recipe.collate([0, 1], 0)["has_text"].all()
    with pytest.raises(ConfigError, match=r"data\.commands: unknown; expected one of train, valid, test"):
        parse_config(ConformerRecipe.Config, values)


def test_runs_of_other_options_have_other_folders(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOQUENT_CACHE", str(tmp_path / "cache"))
    options = CommandsDataOptions(str(sources), words=(), **NOTHING_MADE)
    before, after = prepare(options), prepare(replace(options, strings=20))
    assert len(after) == len(before) + 20 + 1 + 1
    assert {Path(row.path).is_file() for row in before + after} == {True}
    assert not {row.path for row in before} & {row.path for row in after}
    with pytest.raises(ValueError, match="strings: expected a number of at least 0, got -1"):
        replace(options, strings=-1)


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs the program flite")
def test_flite_reads_a_text_as_many_speakers() -> None:
    rng = random.Random(0)
    voice = FliteVoice()
    readings = [voice("three, eight", rng) for _ in range(3)]
    assert all(0.4 * SAMPLE_RATE < len(one) < 3 * SAMPLE_RATE and np.abs(one).max() > 0.05 for one in readings)
    assert len({len(one) for one in readings}) == 3


def test_without_flite_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="apt install flite"):
        FliteVoice()


@pytest.mark.skipif("LOQUENT_KOKORO" not in os.environ, reason="needs LOQUENT_KOKORO, a folder with Kokoro-82M")
def test_kokoro_reads_a_text_as_many_speakers() -> None:
    rng = random.Random(0)
    voice = KokoroVoice(os.environ["LOQUENT_KOKORO"])
    readings = [voice("three, eight", rng) for _ in range(3)]
    assert all(0.4 * SAMPLE_RATE < len(one) < 4 * SAMPLE_RATE and np.abs(one).max() > 0.05 for one in readings)
    assert len({len(one) for one in readings}) == 3


def test_without_kokoro_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no onnx/.* in .*; name a folder .* data.commands.kokoro_digits=0"):
        KokoroVoice(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"cannot get 'nobody/nothing' .*; name a folder"):
        KokoroVoice("nobody/nothing")
    folder = tmp_path / "made"
    with pytest.raises(FileNotFoundError, match="name a folder"):
        prepare(CommandsDataOptions(str(tmp_path), str(folder), flite_coffee=0, flite_digits=0, kokoro=str(tmp_path)))
    assert not list(folder.iterdir())  # before anything was made


def test_digits_are_cut_out_of_sentences(hibari: HibariVoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where word times are kept
    text = "I saw three red birds."
    speech = hibari(text, random.Random(0))
    rows = [{"path": f"{n}.flac", "text": said, "split": "train"} for n, said in enumerate((text, "I saw red birds."))]
    archive(tmp_path / "talk.zip", rows, speech)
    ((row, samples),) = _cut([read_manifest(tmp_path / "talk.zip")])
    assert (row.text, row.extra["kind"], row.split) == ("three", "words", "train")
    assert 0.2 * SAMPLE_RATE < len(samples) < 0.8 * SAMPLE_RATE
    place = next(
        at for at in range(len(speech) - len(samples) + 1) if np.allclose(speech[at:][:100], samples[:100], atol=1e-3)
    )
    assert 0.2 < (place + len(samples) / 2) / len(speech) < 0.6  # in the middle, where it is said


def test_digits_in_a_row_are_cut_apart_where_it_is_quiet() -> None:
    samples = np.concatenate([voiced(0.2, 0.3, 0.2), voiced(0.0, 0.6, 0.2)])  # "two" and "three" without a pause
    said = [("one", 0.2, 0.5), ("two", 0.7, 1.0), ("three", 1.0, 1.3)]
    clips = [(kind, text, first / SAMPLE_RATE, last / SAMPLE_RATE) for kind, text, first, last in _clips(samples, said)]
    assert [clip[:2] for clip in clips] == [("words", "one")]  # the whole is among the strings
    assert clips[0][2] == pytest.approx(0.14, abs=0.01)
    assert 0.5 < clips[0][3] < 0.7
    spoken = [("i", 0.0, 0.1), *said]
    assert [clip[:2] for clip in _clips(samples, spoken)] == [("speakers", "one two three"), ("words", "one")]
    assert list(_clips(samples[:100], said)) == []
