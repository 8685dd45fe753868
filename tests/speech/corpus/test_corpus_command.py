"""``loquent corpus``: every item has one result, whatever happens to the process that makes them."""

import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import loquent.asr
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.commands.cli import main
from loquent.speech.corpus.items import Item
from loquent.speech.corpus.workers import Job, Transcriber, file_name

SAMPLE = Path(str(resources.files("loquent.speech") / "assets" / "sample.flac"))
CUTS_S = (0.0, 1.9, 4.2, 6.4, 8.6)  # between words
FAST = ["--model", "tiny.en", "--beam-size", "1", "--temperature-increment-on-fallback", "None"]
COMMAND = [sys.executable, "-c", "import sys; from loquent.speech.commands.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module", autouse=True)
def _one_model() -> Iterator[None]:
    """The commands of this process load the real model, once for all tests."""
    patch = pytest.MonkeyPatch()
    load = loquent.asr.Recognizer.from_pretrained
    patch.setattr(loquent.asr.Recognizer, "from_pretrained", functools.lru_cache(load))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Four pieces of the sample, two rows that cannot be done, and a manifest of them."""
    folder = tmp_path_factory.mktemp("corpus")
    sample = read_audio(SAMPLE)
    rows = []
    for number, (start, end) in enumerate(itertools.pairwise(CUTS_S)):
        first, after = (round(time_s * sample.sample_rate) for time_s in (start, end))
        write_audio(folder / f"{number}.wav", sample.samples[first:after], sample.sample_rate)
        rows.append({"path": f"{number}.wav", "duration": round(end - start, 3), "text": "as it was said"})
    rows[1:1] = [{"audio_filepath": "missing.wav", "duration": 2.5, "text": ""}, {"text": "no path"}]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory) -> str:
    """The results of a run that nothing happens to."""
    output = tmp_path_factory.mktemp("expected")
    assert main(["corpus", "transcribe", str(corpus), "--output", str(output), *FAST]) == 1
    return (output / "results.jsonl").read_text()


def results(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def killed_while_waiting(arguments: list[str], output: Path, pipe: Path, lines: int) -> None:
    """Run a command that comes to a recording which is a pipe, where it waits, and kill it there."""
    pipe.unlink()
    os.mkfifo(pipe)
    process = subprocess.Popen([*COMMAND, *arguments])
    try:
        limit = time.monotonic() + 120
        path = output / "results.jsonl"
        while not path.exists() or path.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < limit, "no results within 120 s"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        pipe.unlink()


def test_every_item_has_one_result_in_the_order_of_the_manifest(expected):
    found = results(expected)
    names = ["0.wav", "missing.wav", "manifest.jsonl:3", "1.wav", "2.wav", "3.wav"]
    assert [one["id"] for one in found] == names
    assert "no such audio file" in found[1]["error"]
    assert "has no path" in found[2]["error"]
    assert found[0]["text"].startswith("Streaming recognition")
    assert found[0]["reference"] == "as it was said"
    assert found[0]["segments"][-1]["end"] <= found[0]["duration"] == 1.9


def test_after_a_kill_the_same_command_goes_on(corpus, expected, tmp_path):
    """The process waits for the third recording when it is killed, and a line of results is left in half."""
    arguments = ["corpus", "transcribe", str(corpus), "--output", str(tmp_path), *FAST, "--batch-size", "1"]
    pipe = corpus / "3.wav"
    content = pipe.read_bytes()
    try:
        killed_while_waiting(arguments, tmp_path, pipe, lines=3)
    finally:
        pipe.write_bytes(content)
    path = tmp_path / "results.jsonl"
    before = path.read_bytes()
    assert before.count(b"\n") < 6
    path.write_bytes(before + b'{"id":"3.wav","path":')
    assert main(arguments) == 1
    assert path.read_text() == expected
    done = path.stat().st_mtime_ns
    assert main(arguments) == 1  # there is nothing left to do
    assert path.stat().st_mtime_ns == done


def test_other_options_do_not_mix(corpus, expected, tmp_path, capsys):
    arguments = ["corpus", "transcribe", str(corpus), "--output", str(tmp_path), *FAST]
    (tmp_path / "results.jsonl").write_text(expected)
    assert main(arguments) == 1
    assert "cannot tell what the results beside it were made with" in capsys.readouterr().err


def test_a_corpus_may_grow_but_not_change(corpus, tmp_path, capsys):
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    rows = [row | {"path": str(corpus / row["path"]), "id": row["path"]} for row in rows if "path" in row][:3]
    listed = tmp_path / "some.jsonl"
    arguments = ["corpus", "transcribe", str(listed), "--output", str(tmp_path / "out"), *FAST]
    for count in (2, 3):
        listed.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
        assert main(arguments) == 0
        assert f"{count} items, {0 if count == 2 else 2} of them done before" in capsys.readouterr().err
    listed.write_text(json.dumps(rows[0] | {"start": 0.5}) + "\n")
    assert main(arguments) == 1
    assert "the item '0.wav' is not what it was" in capsys.readouterr().err
    assert main([*arguments, "--beam-size", "2"]) == 1
    assert "has results with beam_size 1, not 2" in capsys.readouterr().err


def test_options_of_every_kind_are_kept(corpus, tmp_path, capsys):
    arguments = ["corpus", "transcribe", str(corpus / "0.wav"), "--output", str(tmp_path), *FAST]
    several = ["--vad-filter", "--vad-threshold", "0.4", "--suppress-tokens", "-1,5"]
    assert main([*arguments, *several]) == 0
    assert main([*arguments, *several]) == 0
    assert "1 items, 1 of them done before" in capsys.readouterr().err
    several[2] = "0.45"
    assert main([*arguments, *several]) == 1
    assert "has results with speech" in capsys.readouterr().err


def test_errors_come_again_if_asked(corpus, tmp_path, capsys):
    folder = tmp_path / "speech"
    folder.mkdir()
    write_audio(folder / "a.wav", read_audio(corpus / "0.wav").samples, 24_000)
    (folder / "b.wav").write_bytes(b"not audio")
    arguments = ["corpus", "transcribe", str(folder), "--output", str(tmp_path / "out"), *FAST]
    assert main(arguments) == 1
    write_audio(folder / "b.wav", read_audio(corpus / "1.wav").samples, 24_000)
    assert main(arguments) == 1
    assert "2 of them done before, 1 with errors" in capsys.readouterr().err
    assert main([*arguments, "--retry-errors"]) == 0
    assert [one["id"] for one in results((tmp_path / "out" / "results.jsonl").read_text())] == ["a.wav", "b.wav"]


def test_a_recording_that_breaks_the_model_costs_no_other_its_result(corpus, tmp_path, monkeypatch):
    """The whole batch fails; then each of those that have no result yet comes alone."""
    worker = Transcriber(Job("transcribe", "tiny.en", tmp_path, options={"beam_size": 1}))
    real = worker.recognizer.segments

    def segments(sources, **options):
        for number, source in enumerate(sources):
            if source.endswith("2.wav"):
                raise RuntimeError("out of memory")
            yield from ((number, item) for _, item in real([source], **options))

    monkeypatch.setattr(worker.recognizer, "segments", segments)
    items = [Item(f"{k}", path=str(corpus / f"{k}.wav")) for k in range(4)]
    found = {one["id"]: one for one in worker.records(items, "")}
    assert [*found] == ["0", "1", "2", "3"]
    assert found["2"]["error"] == "RuntimeError: out of memory"
    assert all(found[k]["text"] for k in "013")


def test_options_that_do_not_fit_the_model_end_the_command_not_every_item(corpus, tmp_path, capsys):
    arguments = ["corpus", "transcribe", str(corpus), "--output", str(tmp_path)]
    assert main([*arguments, *FAST, "--multilingual"]) == 1
    assert "knows English only" in capsys.readouterr().err
    assert (tmp_path / "results.jsonl").read_text() == ""
    assert main([*arguments, *FAST, "--workers", "2"]) == 2


def test_supervisions_for_lhotse(corpus, expected, tmp_path):
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(SAMPLE)
    cut = lhotse.MonoCut("part", 4.2, 4.4, 0, recording=recording)
    cuts, output = tmp_path / "cuts.jsonl.gz", tmp_path / "out"
    lhotse.CutSet.from_cuts([cut]).to_file(cuts)
    arguments = ["corpus", "transcribe", str(cuts), "--output", str(output), "--lhotse", "--word-timestamps", *FAST]
    assert main(arguments) == 0
    supervisions = lhotse.SupervisionSet.from_jsonl(output / "supervisions.jsonl")
    assert [one.recording_id for one in supervisions] == [recording.id] * len(supervisions)
    for one in supervisions:
        assert 4.2 <= one.start < one.end <= 8.7
        assert one.alignment is not None
        assert "".join(item.symbol for item in one.alignment["word"]) == one.text.replace(" ", "")
        assert all(one.start <= item.start <= item.end <= one.end for item in one.alignment["word"])
    (result,) = results((output / "results.jsonl").read_text())
    assert result["text"] == " ".join(one.text for one in supervisions)


def test_texts_become_speech(tmp_path):
    rows = [
        {"id": "greeting/1", "text": "Hello there."},
        {"id": "../up", "text": "Good bye."},
        {"id": "c", "text": "…"},
    ]
    listed, output = tmp_path / "texts.jsonl", tmp_path / "out"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["corpus", "speak", str(listed), "--model", "loquent/voice", "--ending", ".flac", "--lhotse"]
    assert main([*arguments, "--output", str(output)]) == 1
    one, two, three = results((output / "results.jsonl").read_text())
    assert one["path"] == "audio/greeting/1.flac"
    assert two["path"] == f"audio/{file_name('../up')}.flac"
    assert "nothing in the text" in three["error"]
    for result in (one, two):
        audio = read_audio(output / result["path"])
        assert result["duration"] == round(audio.duration_s, 3) > 0.3
    assert [json.loads(line)["id"] for line in (output / "supervisions.jsonl").read_text().splitlines()] == [
        "greeting/1",
        "../up",
    ]
    alone = tmp_path / "alone"
    listed.write_text(json.dumps(rows[0]) + "\n")
    assert main([*arguments, "--output", str(alone)]) == 0
    one_alone, together = (read_audio(folder / one["path"]).samples for folder in (alone, output))
    np.testing.assert_allclose(one_alone, together, atol=2 / 32768)  # rounded to 16 bits


def test_texts_are_translated(tmp_path, capsys):
    listed, output = tmp_path / "texts.jsonl", tmp_path / "out"
    texts = ["Where is the station?", "I would like\na coffee.", ""]
    listed.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    arguments = ["corpus", "translate", str(listed), "--output", str(output)]
    assert main([*arguments, "--to", "es"]) == 0
    found = results((output / "results.jsonl").read_text())
    assert [one["source"] for one in found] == texts
    assert "estación" in found[0]["text"]
    assert "café" in found[1]["text"]
    assert found[2]["text"] == ""
    assert {one["language"] for one in found} == {"es"}
    other = ["corpus", "translate", str(listed), "--output", str(tmp_path / "other")]
    assert main([*other, "--model", "loquent/en-es", "--to", "de"]) == 1
    assert "does not translate to 'de'" in capsys.readouterr().err
    assert main(other) == 2
