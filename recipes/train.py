"""`loquent train`: a configuration to a trained model."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from loquent.recipes.config import ConfigError, parse_config, read_config
from loquent.recipes.training import Training, TrainingOptions

RECIPES = {
    "conformer": "loquent.recipes.conformer:ConformerRecipe",
    "causal_whisper": "loquent.recipes.causal_whisper:CausalWhisperRecipe",
}
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Run:
    """What a configuration asks for."""

    recipe: Any  # a class with ``Config``, made with its configuration and the folder of the run
    config: Any
    training: TrainingOptions


def read_run(source: str, overrides: Sequence[str] = ()) -> Run:
    """Read a configuration: a YAML file, or the name of one that comes with loquent.

    Its key ``recipe`` names the recipe, ``training`` holds `TrainingOptions`, and the rest is the recipe's own.

    Raises:
        ConfigError: there is no such configuration, or something in it is wrong.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = CONFIGS / f"{source}.yaml"
        if not path.is_file():
            names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
            raise ConfigError(f"no configuration named {source!r}; give a YAML file, or one of {names}")
    values = read_config(path, overrides)
    name = values.pop("recipe", None)
    if name not in RECIPES:
        raise ConfigError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    training = parse_config(TrainingOptions, values.pop("training", {}), "training")
    module, _, attribute = RECIPES[name].partition(":")
    recipe = getattr(importlib.import_module(module), attribute)
    return Run(recipe, parse_config(recipe.Config, values), training)


def train(source: str, overrides: Sequence[str], output: str) -> dict[str, float] | None:
    """Train, from the start or from the last checkpoint in ``output``.

    Returns:
        The figures on the evaluation data; None if SIGTERM stopped the run, which can then be resumed.

    Raises:
        ConfigError: the configuration is wrong.
        TrainingError: ``output`` belongs to another configuration.
        ManifestError: data is missing.
    """
    from accelerate import PartialState

    run = read_run(source, overrides)
    folder = Path(output)
    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():  # the first one prepares data
        recipe = run.recipe(run.config, folder)
    config = {"recipe": asdict(run.config), "training": asdict(run.training)}
    return Training(recipe, run.training, folder, config).run()
