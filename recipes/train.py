"""`loquent train`: a configuration to a trained model."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from loquent.recipes.loop.config import ConfigError, merged, parse_config, read_config
from loquent.recipes.loop.training import Training, TrainingOptions

RECIPES = {
    "conformer": "loquent.recipes.conformer.recipe:ConformerRecipe",
    "commands": "loquent.recipes.commands.recipe:CommandsRecipe",
    "causal_whisper": "loquent.recipes.whisper.recipe:CausalWhisperRecipe",
    "retranslation": "loquent.recipes.translation.retranslation:RetranslationRecipe",
    "interpreter_lora": "loquent.recipes.interpreter.recipe:InterpreterRecipe",
    "translation": "loquent.recipes.translation.recipe:TranslationRecipe",
    "voice": "loquent.recipes.voice.recipe:VoiceRecipe",
    "whisper_lora": "loquent.recipes.whisper.fine_tuning:WhisperLoraRecipe",
}
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Run:
    """A configuration as it was read."""

    recipe: Any  # a class with ``Config``, made with its configuration and the folder of the run
    config: Any
    training: TrainingOptions
    stages: tuple[Run, ...] = ()  # that come before it, each starting from the best of the one before


def read_run(source: str, overrides: Sequence[str] = ()) -> Run:
    """Read a configuration: a YAML file, or the name of one that comes with loquent.

    Its key ``recipe`` names the recipe, ``training`` holds `TrainingOptions`, and the rest is the recipe's own. Each
    entry of ``stages`` changes some of these values for a run that comes first.

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
    module, _, attribute = RECIPES[name].partition(":")
    recipe = getattr(importlib.import_module(module), attribute)
    stages = values.pop("stages", None) or []
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise ConfigError(f"stages: expected a list of groups of keys, got {stages!r}")
    common = {key: value for key, value in values.items() if key != "mean_of"}  # which says what the last run is
    before = tuple(_parsed(recipe, merged(common, stage), f"stages[{at}].") for at, stage in enumerate(stages))
    run = replace(_parsed(recipe, values), stages=before)
    for at, one in enumerate([*before, run]):
        for name in getattr(one.config, "mean_of", None) or ():
            if name.startswith("stage-") and name not in {f"stage-{number}" for number in range(1, at + 1)}:
                inside = "" if one is run else f"stages[{at}]."
                raise ConfigError(f"{inside}mean_of: {name} does not come before; there are {at} stages by then")
    return run


def _parsed(recipe: Any, values: dict[str, Any], inside: str = "") -> Run:
    rest = {key: value for key, value in values.items() if key != "training"}
    try:
        training = parse_config(TrainingOptions, values.get("training", {}), "training")
        return Run(recipe, parse_config(recipe.Config, rest), training)
    except ConfigError as error:
        raise ConfigError(f"{inside}{error}") from error


def train(source: str, overrides: Sequence[str], output: str) -> dict[str, float] | None:
    """Train, from the start or from the last checkpoint in ``output``.

    Returns:
        The figures on the evaluation data; None if SIGTERM stopped the run, which can then be resumed.

    Raises:
        ConfigError: the configuration is wrong.
        TrainingError: ``output`` belongs to another configuration.
        ManifestError: data is missing.
    """
    run, folder = read_run(source, overrides), Path(output)
    trained: dict[str, str] = {}  # by the stages so far
    for number, stage in enumerate(run.stages, start=1):
        name = f"stage-{number}"
        if not _training(stage, folder / name, trained).train():
            return None
        trained[name] = str(folder / name / "best")
    return _training(run, folder, trained).run()


def _training(run: Run, folder: Path, trained: dict[str, str]) -> Training:
    from accelerate import PartialState

    config, mean_of = run.config, getattr(run.config, "mean_of", None)
    if mean_of is not None:
        config = replace(config, mean_of={trained.get(name, name): share for name, share in mean_of.items()})
    elif trained:
        config = replace(config, start=list(trained.values())[-1])
    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():  # the first one prepares data
        recipe = run.recipe(config, folder)
    return Training(recipe, run.training, folder, {"recipe": asdict(config), "training": asdict(run.training)})
