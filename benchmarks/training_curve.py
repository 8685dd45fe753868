"""Curves of training runs: the losses, and the word error rates on validation data, as one picture.

    python benchmarks/training_curve.py runs/commands/log.jsonl --output curve.svg

Several logs are drawn one after the other, as stages of one training. Each run draws its own into its folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from loquent.recipes.loop.curve import draw_curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="log.jsonl of each stage")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    draw_curve(options.logs, options.output)


if __name__ == "__main__":
    main()
