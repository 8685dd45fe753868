"""``loquent train``: train a model by a recipe."""

from __future__ import annotations

import argparse
import json
import signal
from typing import Any

from loquent.speech.commands.arguments import UsageError


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help="train a model by a recipe",
        description="Train a model, or go on with a run that was stopped. It evaluates every "
        "training.evaluate_every steps, for the log, and at the end, when the figures are written as JSON. It needs "
        'more packages: in a checkout of loquent, pip install ".[train]".',
        epilog="`loquent train --list` tells the recipes that come with loquent.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?", help="YAML file, or the name of a recipe that comes with loquent"
    )
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="change a value, such as training.steps=1000")
    parser.add_argument("--output", metavar="FOLDER", help="folder of the run; one with checkpoints goes on")
    parser.add_argument("--list", action="store_true", help="list the recipes that come with loquent, and exit")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Train."""
    from loquent.speech.tasks import load_task

    if arguments.list:
        print(*load_task("recipes")(), sep="\n")
        return 0
    if arguments.recipe is None or arguments.output is None:
        raise UsageError("a RECIPE and --output FOLDER are needed; `loquent train --list` tells the recipes")
    figures = load_task("training")(arguments.recipe, arguments.overrides, arguments.output)
    if figures is None:
        return 128 + signal.SIGTERM
    if figures:  # of several processes one reports
        print(json.dumps(figures, indent=2))
    return 0
