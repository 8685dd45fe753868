"""Word times: found by a stock Whisper, kept, found once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance
from loquent.recipes.whisper import prepare_word_times
from loquent.recipes.whisper.word_times import TimedText, WordTimes, WordTimesOptions
from loquent.speech.audio.files import read_audio, write_audio

SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """The first seconds of the sample with what is said in them, and twice with what is not."""
    folder = tmp_path_factory.mktemp("speech")
    samples = read_audio(SAMPLE, SAMPLE_RATE).samples[: int(3.3 * SAMPLE_RATE)]
    rows = []
    for number, text in enumerate(
        [
            "streaming recognition writes each word down while you are",
            "(sigh)",
            "how many tins of paint are there on the roof",
        ]
    ):
        path = folder / f"{number}.wav"
        write_audio(path, samples, SAMPLE_RATE)
        rows.append(Utterance(str(path), text, len(samples) / SAMPLE_RATE, id=f"set/{number}.wav", set="set"))
    return rows


def test_times_are_found_once_and_shared_out(rows: list[Utterance], tmp_path: Path) -> None:
    options = WordTimesOptions(folder=str(tmp_path))
    times = WordTimes(options)
    assert times.read(rows, pseudo=False) == {}
    times.prepare(rows, shard=(0, 2))
    assert set(times.read(rows, pseudo=False)) == {"set/0.wav", "set/2.wav"}
    times.prepare(rows, shard=(1, 2))
    known = times.read(rows, pseudo=False)
    assert set(known) == {row.id for row in rows}
    files = sorted(tmp_path.rglob("*.jsonl"))
    before = [file.read_bytes() for file in files]
    assert len(files) == 2
    times.prepare(rows)
    assert sorted(tmp_path.rglob("*.jsonl")) == files
    assert [file.read_bytes() for file in files] == before

    right, empty, wrong = (known[row.id] for row in rows)
    duration = rows[0].duration
    assert right.text == " Streaming recognition writes each word down while you are."
    ends = [end for _, _, end in right.spoken]
    assert ends == sorted(ends)
    assert right.words[0][1] >= 0
    assert 1.5 < ends[-1] <= duration
    assert right.plausible(duration, options)
    assert not empty.plausible(duration, options)
    assert wrong.probability < 0.3 * right.probability
    assert not wrong.plausible(duration, dataclasses.replace(options, least_probability=0.5 * right.probability))


def test_a_changed_text_and_half_a_line_are_found_again(rows: list[Utterance], tmp_path: Path) -> None:
    times = WordTimes(WordTimesOptions(folder=str(tmp_path)))
    times.prepare(rows[:1])
    (file,) = tmp_path.rglob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-20])  # killed while writing
    assert times.read(rows[:1], pseudo=False) == {}
    times.prepare(rows[:1])
    assert set(times.read(rows[:1], pseudo=False)) == {"set/0.wav"}
    changed = dataclasses.replace(rows[0], text="each word down")
    assert times.read([changed], pseudo=False) == {}
    times.prepare([changed])
    assert times.read([changed], pseudo=False)["set/0.wav"].text == " Each word down."


def test_texts_of_a_larger_model(rows: list[Utterance], tmp_path: Path) -> None:
    times = WordTimes(WordTimesOptions(folder=str(tmp_path), transcriber="tiny.en"))
    times.prepare(rows[2:], pseudo=True)
    assert times.read(rows[2:], pseudo=False) == {}
    known = times.read(rows[2:], pseudo=True)["set/2.wav"]
    assert "recognition" in known.text
    assert "paint" not in known.text


def test_what_is_not_plausible() -> None:
    options = WordTimesOptions(least_probability=0.2, words_per_second=3, longest_word_s=1.0)
    good = TimedText(((" a", 0.0, 0.5), (" b", 0.5, 1.0)), 0.5)
    assert good.plausible(1.0, options)
    assert not dataclasses.replace(good, probability=0.1).plausible(1.0, options)
    assert not dataclasses.replace(good, words=good.words * 3).plausible(1.0, options)
    assert not dataclasses.replace(good, words=((" a", 0.0, 1.5),)).plausible(2.0, options)
    assert not dataclasses.replace(good, words=()).plausible(1.0, options)


def test_the_command_shares_the_work_of_a_configuration(
    rows: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOQUENT_DATA", str(tmp_path))
    lines = [{"path": row.path, "text": row.text, "duration": row.duration, "split": "train"} for row in rows]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "mine.yaml").write_text(
        f"recipe: causal_whisper\ndata:\n  train: {{set: {{manifest: {tmp_path}}}}}\n  test: {{}}\n"
        "training: {steps: 1}\n"
    )
    mine, folder = str(tmp_path / "mine.yaml"), f"data.word_times.folder={tmp_path / 'times'}"
    prepare_word_times.main([mine, folder, "--shard", "1/2"])
    (file,) = tmp_path.rglob("*.1-2.jsonl")
    assert len(file.read_text().splitlines()) == 1
    with pytest.raises(SystemExit, match="commands is not a configuration of causal_whisper: it needs no word times"):
        prepare_word_times.main(["commands"])
    with pytest.raises(SystemExit):
        prepare_word_times.main([mine, "--shard", "2/2"])
    assert "expected I/N such as 0/2, with I from 0 to N-1, got 2/2" in capsys.readouterr().err
