"""``loquent train``: train a model by a recipe."""

from __future__ import annotations

import argparse
import json
import signal
from typing import Any


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a model by a recipe",
        description="Train a model, or go on with a run that was stopped; figures on the evaluation data at the end.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="YAML file, or the name of one that comes with loquent: commands"
    )
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="change a value, such as training.steps=1000")
    parser.add_argument(
        "--output", metavar="FOLDER", required=True, help="folder of the run; one with checkpoints goes on"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Train."""
    from loquent.speech.tasks import load_task

    figures = load_task("training")(arguments.recipe, arguments.overrides, arguments.output)
    if figures is None:
        return 128 + signal.SIGTERM
    if figures:  # of several processes one reports
        print(json.dumps(figures, indent=2))
    return 0
