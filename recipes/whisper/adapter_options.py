"""A stock Whisper, and the low-rank adapter that a recipe trains on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loquent.asr.whisper.checkpoint import load_whisper
from loquent.asr.whisper.lora import load_adapter
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.recipes.loop.config import ConfigError
from loquent.speech.hub import resolve

if TYPE_CHECKING:
    from peft import PeftModel

ATTENTION = ("query", "key", "value", "out")
FEED_FORWARD = ("mlp.0", "mlp.2")


@dataclass(frozen=True)
class AdapterOptions:
    """The low-rank update of the layers, see PEFT's `LoraConfig`; patterns are matched with the ends of layers' names.

    Raises:
        ValueError: a rank below 1.
    """

    rank: int = 32
    alpha: int | None = None  # the update is scaled by alpha / rank; the rank by default
    rank_pattern: dict[str, int] = field(default_factory=dict)  # ranks of some layers, such as {"cross_attn.key": 8}
    alpha_pattern: dict[str, int] = field(default_factory=dict)
    use_rslora: bool = False  # scale by alpha / sqrt(rank), arXiv 2312.03732
    feed_forward: bool = True  # also the two layers after attention

    def __post_init__(self) -> None:
        for key, rank in {"rank": self.rank, **self.rank_pattern}.items():
            if rank < 1:
                raise ValueError(f"{key}: expected at least 1, got {rank}")


def stock_whisper(name: str) -> Whisper:
    """A checkpoint as it is, by name, folder or hub id."""
    checkpoint = load_whisper(resolve(name).path)
    return Whisper.from_weights(checkpoint.config, checkpoint.weights)


def stock_tokenizer(name: str, model: Whisper) -> WhisperTokenizer:
    """The tokenizer beside a checkpoint, by name, folder or hub id.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is not the one of the model.
    """
    path = resolve(name).path
    tokenizer = WhisperTokenizer.load(path if path.is_dir() else path.parent)
    tokenizer.check_model(model.config.n_vocab)
    return tokenizer


def with_adapter(model: Whisper, options: AdapterOptions, start: str | None = None) -> PeftModel:
    """Put an adapter on a model, in place.

    Args:
        start: folder or hub id of an adapter of the same layers and ranks to begin with.

    Raises:
        ConfigError: ``start`` is another kind of adapter.
    """
    from peft import LoraConfig

    from loquent.recipes.loop.low_rank import add_adapter
    from loquent.recipes.whisper.low_rank import start_from

    adapted = add_adapter(
        model,
        LoraConfig(
            r=options.rank,
            lora_alpha=options.rank if options.alpha is None else options.alpha,
            target_modules=[*ATTENTION, *(FEED_FORWARD if options.feed_forward else ())],
            rank_pattern=options.rank_pattern,
            alpha_pattern=options.alpha_pattern,
            use_rslora=options.use_rslora,
        ),
    )
    if start is not None:
        try:
            start_from(model, load_adapter(start).factors)
        except ValueError as error:
            raise ConfigError(f"start: cannot go on from {start}: {error}") from error
    return adapted
