"""The picture of a run has its losses and its error rates or other figures, and follows from its log."""

from __future__ import annotations

import json
from pathlib import Path

from loquent.recipes.loop.curve import draw_curve


def test_a_curve_of_two_stages(tmp_path: Path) -> None:
    lines = [
        {"step": 5, "time": 1.0, "loss": 3.0, "grad_norm": 1.0},
        {"step": 10, "time": 2.0, "loss": 2.0},
        {"step": 10, "time": 2.0, "valid/loss": 2.5, "valid/300ms/wer": 40.0, "valid/300ms/delay_p50_ms": 700.0},
        {"step": 10, "time": 3.0, "test/before/live/wer": 50.0, "test/after/live/wer": 20.0},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("one.svg", "two.svg"):
        draw_curve([log, log], tmp_path / name)
    picture = (tmp_path / "one.svg").read_text()
    assert picture == (tmp_path / "two.svg").read_text()
    for label in ("training", "valid/loss", "300ms", "live", "word error rate, %", "steps"):
        assert f"<!-- {label} -->" in picture
    assert "delay" not in picture


def test_a_curve_without_error_rates(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 3.0}\n')
    draw_curve([log], tmp_path / "curve.svg")
    assert "word error rate" not in (tmp_path / "curve.svg").read_text()


def test_figures_that_are_no_error_rates(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 3.0}\n{"step": 1, "valid/log_power": 0.5, "valid/spectral": 1.5}\n')
    draw_curve([log], tmp_path / "curve.svg")
    picture = (tmp_path / "curve.svg").read_text()
    assert "word error rate" not in picture
    for label in ("log_power", "spectral", "on validation data"):
        assert f"<!-- {label} -->" in picture


def test_times_are_no_error_rates(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "valid/wer": 9.0, "valid/books/ctc/80ms": 8.0, "valid/wait_p50_ms": 240.0}\n')
    draw_curve([log], tmp_path / "curve.svg")
    picture = (tmp_path / "curve.svg").read_text()
    assert "<!-- books/ctc/80ms -->" in picture
    assert "wait" not in picture
