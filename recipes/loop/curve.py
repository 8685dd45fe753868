"""The curve of a training run as a picture: its losses, and what it was judged by on validation and evaluation data."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

Points = list[tuple[float, float]]
# "wer" and "300ms/books/wer"; those of a Conformer end in the latency: "books/ctc/80ms".
ERROR_RATE = re.compile(r"(.*/)?(wer|\d+ms)")


def draw_curve(logs: Sequence[Path], picture: Path) -> None:
    """Draw the logs of one run, or of stages that follow one another, as SVG.

    Below the losses are the word error rates, or, where a run has none, its other figures on validation data.

    Args:
        logs: ``log.jsonl`` of each stage.
        picture: the file to write; the same logs give the same bytes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    losses, rates, others, ends = _read(logs)
    figures, unit = (rates, "word error rate, %") if rates else (others, "on validation data")
    with rc_context({"svg.hashsalt": "loquent"}):
        figure = Figure(figsize=(8, 7 if figures else 4), layout="constrained")
        FigureCanvasSVG(figure)
        above, *below = figure.subplots(2 if figures else 1, 1, sharex=True, squeeze=False)[:, 0]
        for name, points in sorted(losses.items()):
            trained = name == "loss"
            style = {"color": "black"} if trained else {"marker": "."}
            above.plot(*zip(*points, strict=True), linewidth=1, label="training" if trained else name, **style)
        above.set_ylabel("loss")
        if len(losses) > 1:
            above.legend(fontsize=7)
        for axis in below:
            for name, points in sorted(figures.items()):
                axis.plot(*zip(*points, strict=True), marker=".", linewidth=1, label=name)
            axis.set_ylabel(unit)
            values = [value for points in figures.values() for _, value in points]
            if max(values) > 10 * min(values):
                axis.set_yscale("symlog", linthresh=1)
            else:
                axis.set_ylim(bottom=0)
            axis.legend(fontsize=7, ncols=3)
        (below or [above])[0].set_xlabel("steps")
        for axis in (above, *below):
            axis.grid(alpha=0.3)
            for end in ends[:-1]:
                axis.axvline(end, color="grey", linestyle=":", linewidth=1)
        unfinished = picture.with_name(picture.name + ".part")
        figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(picture)


def _read(logs: Sequence[Path]) -> tuple[dict[str, Points], dict[str, Points], dict[str, Points], list[int]]:
    """Losses, error rates and other figures by name, each as (step, value), and the last step of each log."""
    losses: dict[str, Points] = defaultdict(list)
    rates: dict[str, Points] = defaultdict(list)
    others: dict[str, Points] = defaultdict(list)
    ends: list[int] = []
    for log in logs:
        origin = step = ends[-1] if ends else 0
        for line in log.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            step = origin + values.pop("step")
            for name, value in values.items():
                short = name.removeprefix("valid/")
                if name == "loss" or (short != name and short.split("/")[-1] == "loss"):
                    losses[name].append((step, value))
                elif short.startswith("test/before/"):  # what a fine-tuned model was measured to be at the beginning
                    rates[short.removeprefix("test/before/").removesuffix("/wer")].insert(0, (origin, value))
                elif short.startswith("test/after/"):
                    rates[short.removeprefix("test/after/").removesuffix("/wer")].append((step, value))
                elif short != name:
                    kind = rates if ERROR_RATE.fullmatch(short) else others
                    kind[short.removesuffix("/wer")].append((step, value))
        ends.append(step)
    return losses, rates, others, ends
