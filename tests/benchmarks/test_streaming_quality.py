"""What the benchmark of streaming quality makes of recordings and of results."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    for name in ("streaming_quality", "whisper_offline", "text_normalizer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import streaming_quality  # type: ignore[import-not-found]

    module: ModuleType = streaming_quality
    return module


def entry(system: str, name: str, said: str, text: str, **more: Any) -> dict[str, Any]:
    values = {"audio_s": 2.0, "cpu_s": 0.1, "delays": [], "revised": 0, **more}
    return {"system": system, "set": name, "first": f"{name}/1", "texts": [[said, text]], **values}


def test_seen_and_unseen_sets_are_never_pooled(benchmark: ModuleType) -> None:
    entries = [
        entry("offline", "uqm", "one two three four", "one two three"),
        entry("confident:300", "uqm", "one two three four", "one", delays=[100, 300, 200], revised=1),
        entry("offline", "misc_en", "red", "red"),
        entry("confident:300", "misc_en", "red", "red", delays=[400]),
        entry("offline", "game_bass_en", "well", "dwell"),
        entry("confident:300", "game_bass_en", "well", "well"),
        entry("offline", "fsdd", "zero", "zero"),  # the other system has not had it
    ]
    found = benchmark.summarize(entries, ["offline", "confident:300"], benchmark.UNSEEN)
    unseen, seen = found["unseen"], found["seen"]
    assert (unseen["sets"], unseen["recordings"]) == (["misc_en", "uqm"], 2)
    assert unseen["systems"]["offline"] == {"wer": 20.0, "wer_mean_of_sets": 12.5, "compute_ms_per_s": 50.0}
    live = unseen["systems"]["confident:300"]
    assert (live["wer"], live["wer_mean_of_sets"], live["delay_p50_ms"], live["revised"]) == (60.0, 37.5, 250.0, 50.0)
    assert (seen["sets"], seen["systems"]["offline"]["wer"], seen["systems"]["confident:300"]["wer"]) == (
        ["game_bass_en"], 100.0, 0.0,
    )  # fmt: skip
    assert found["by_set"]["uqm"] == {"offline": 25.0, "confident:300": 75.0}

    text = benchmark.tables(found)
    before, _, after = text.partition("sets of a kind that was trained on")
    assert "sets that nothing was trained on: 2, 2 recordings" in before
    assert "uqm" in before
    assert "game_bass_en" in after
    assert "misc_en" not in after
    with pytest.raises(SystemExit, match="no turn that every system has had"):
        benchmark.summarize(entries, ["offline", "alignatt:1000"], benchmark.UNSEEN)


def test_sets_come_from_archives_and_from_folders(benchmark: ModuleType, tmp_path: Path) -> None:
    rows = [
        {"path": f"{number}.ogg", "text": "x", "duration": 1.0, "split": "eval", "accent": accent}
        for number, accent in enumerate(("dutch", "dutch", "arabic"))
    ]
    rows += [
        rows[0] | {"path": "train.ogg", "split": "train"},
        rows[0] | {"path": "m.ogg", "text_source": "whisper-base"},
    ]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "speech").mkdir()
    with zipfile.ZipFile(tmp_path / "speech" / "prompts.zip", "w") as archive:
        archive.writestr("manifest.jsonl", lines)
    (tmp_path / "more" / "archive").mkdir(parents=True)
    (tmp_path / "more" / "archive" / "manifest.jsonl").write_text(lines)

    found = benchmark.read_sets(tmp_path, None, None, by_accent=False)
    assert {name: sorted(row.id for row in rows) for name, rows in found.items()} == {
        name: [f"{name}/{number}.ogg" for number in range(3)] for name in ("prompts", "archive")
    }
    assert [row.id for row in benchmark.read_sets(tmp_path, ["archive"], 1, by_accent=False)["archive"]] == [
        found["archive"][0].id
    ]
    accents = benchmark.read_sets(tmp_path, ["archive"], None, by_accent=True)
    assert {name: len(rows) for name, rows in accents.items()} == {"archive/dutch": 2, "archive/arabic": 1}
    with pytest.raises(SystemExit, match="set LOQUENT_DATA"):
        benchmark.read_sets(tmp_path, ["absent"], None, by_accent=False)
