"""The word times that a configuration of causal Whisper needs, found before training and in several processes.

    python -m loquent.recipes.whisper.prepare_word_times causal_tiny_en

`loquent train` does the same first, in one process, unless it was done. It can be stopped at any time and goes on where
it was; several processes with ``--shard 0/2``, ``--shard 1/2`` share the work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from loquent.recipes.data.manifest import ManifestError
from loquent.recipes.loop.config import ConfigError
from loquent.recipes.train import read_run
from loquent.recipes.whisper.recipe import CausalWhisperConfig, prepare


def main(arguments: Sequence[str] | None = None) -> None:
    """Find the word times that a configuration needs."""
    parser = argparse.ArgumentParser(
        prog="python -m loquent.recipes.whisper.prepare_word_times", description=main.__doc__
    )
    parser.add_argument("recipe", metavar="RECIPE", help="as for `loquent train`")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*")
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N", help="the I-th of N processes, counted from 0"
    )
    given = parser.parse_args(arguments)
    try:
        config = read_run(given.recipe, given.overrides).config
        if not isinstance(config, CausalWhisperConfig):
            raise ConfigError(f"{given.recipe} is not a configuration of causal_whisper: it needs no word times")
        prepare(config, given.shard)
    except (ConfigError, ManifestError) as error:
        sys.exit(str(error))


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N such as 0/2, with I from 0 to N-1, got {text}")
    return int(index), int(count)


if __name__ == "__main__":
    main()
