"""Curves of training runs: the loss, and the word error rates on validation data, as one picture.

    python benchmarks/training_curve.py runs/commands/log.jsonl --output curve.svg

Several logs are drawn one after the other, as stages of one training.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="log.jsonl of each stage")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    loss: list[tuple[float, float]] = []
    rates: dict[str, list[tuple[float, float]]] = defaultdict(list)
    ends, origin = [], 0
    for log in options.logs:
        step = 0
        for line in log.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            step = values["step"]
            if "loss" in values:
                loss.append((origin + step, values["loss"]))
            for name, value in values.items():
                if name.startswith("valid/") and name.endswith(("ms", "ms/wer")) and "delay" not in name:
                    rates[name.removeprefix("valid/").removesuffix("/wer")].append((origin + step, value))
        origin += step
        ends.append(origin)

    plt.rcParams["svg.hashsalt"] = "loquent"  # the same picture from the same logs
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    above.plot(*zip(*loss, strict=True), color="black", linewidth=1)
    above.set_ylabel("loss")
    for name, points in sorted(rates.items()):
        below.plot(*zip(*points, strict=True), marker=".", linewidth=1, label=name)
    below.set_ylabel("word error rate, %")
    below.set_yscale("symlog", linthresh=1)
    below.set_xlabel("steps")
    below.legend(fontsize=7, ncols=3)
    for axis in (above, below):
        axis.grid(alpha=0.3)
        for end in ends[:-1]:
            axis.axvline(end, color="grey", linestyle=":", linewidth=1)
    figure.savefig(options.output, metadata={"Date": None})


if __name__ == "__main__":
    main()
