"""The recipe of the commands model: the Conformer's recipe, on data that it prepares itself (see `data`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from loquent.recipes.commands.data import CommandsDataOptions, prepare
from loquent.recipes.conformer.recipe import ConformerRecipe, ConformerRecipeConfig, DataOptions
from loquent.recipes.data.dataset import SourceOptions
from loquent.recipes.data.manifest import Utterance

Source = TypeVar("Source", bound=SourceOptions)


@dataclass(frozen=True)
class CommandsSources(DataOptions):
    """Sources by name; those without a manifest are taken from the prepared data, by their ``kind``."""

    commands: CommandsDataOptions

    def present(self) -> CommandsSources:
        """Without the sources whose kind ``commands`` leaves out."""
        absent = self.commands.left_out

        def present(sources: dict[str, Source]) -> dict[str, Source]:
            return {name: source for name, source in sources.items() if source.kind not in absent}

        return replace(self, train=present(self.train), valid=present(self.valid), test=present(self.test))


@dataclass(frozen=True)
class CommandsRecipeConfig(ConformerRecipeConfig):
    """Data, model and loss."""

    data: CommandsSources


class CommandsRecipe(ConformerRecipe):
    """Prepares the data of the commands model and trains a Conformer on it."""

    Config: ClassVar[type[ConformerRecipeConfig]] = CommandsRecipeConfig
    config: CommandsRecipeConfig

    def prepare_data(self) -> tuple[DataOptions, list[Utterance]]:
        """See `ConformerRecipe.prepare_data` and `prepare`."""
        return self.config.data.present(), prepare(self.config.data.commands)
