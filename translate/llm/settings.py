"""How a language model is asked to translate: what stands before, between and behind source and target."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from loquent.speech.runtime.options import parse_options
from loquent.speech.text.languages import LANGUAGES

ENTRY = "loquent_translation"  # of a model's config.json
Layout = Literal["grouped", "interleaved", "prompt"]
LATENCIES = ("low", "medium", "high")
MOST_CAPACITY = 2**16
# EAST, Fu et al. 2025 (arXiv 2504.09570).
INTERPRETER = (
    "You are a professional simultaneous interpreter, your task is to translate the following {source} text into "
    "{target} with {latency} latency."
)
TRANSLATOR = "Translate the following {source} text into {target}. Answer with the translation alone."


@dataclass(frozen=True)
class LanguageModelSettings:
    """The entry `loquent_translation` of a model's `config.json`.

    source, target:  codes of the languages.
    layout:          "prompt" is how any chat model translates: the source, then the translation. When a word is read,
                     what was written so far moves, and is given to the model again: a step for each of its pieces.
                     "grouped": positions of source and target are counted apart (group position encoding), so nothing
                     moves; the model has to be trained so.
                     "interleaved": the words that were read, a mark, what was written for them, a mark, and so on; the
                     model has to be trained so, and learns when to write.
    before:          text before the source, with {source}, {target} and {latency} in it.
    between:         text between the source and its translation; not interleaved.
    end:             pieces that end a translation, besides any with a line break.
    end_of_read, end_of_write: pieces that end what was read and what was written; interleaved.
    latency:         low, medium or high, of streams that choose none.
    offset:          position of the first target piece, ``between`` included; grouped.
    heads:           (layer, head) pairs that tell which source piece a target piece comes from, see `choose_heads`; by
                     default all heads of the middle third of the layers.
    source_capacity, target_capacity: pieces of either side that can be attended to.
    weights:         file of the weights in the GGUF format; by default safetensors, as Hugging Face names them.
    """

    source: str
    target: str
    layout: Layout = "prompt"
    before: str = ""
    between: str = ""
    end: tuple[str, ...] = ()
    end_of_read: str = "<|end-of-read|>"
    end_of_write: str = "<|end-of-write|>"
    latency: Literal["low", "medium", "high"] = "medium"
    offset: int = 0
    heads: tuple[tuple[int, int], ...] = ()
    source_capacity: int = 256
    target_capacity: int = 512
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise ValueError(f"layout: expected one of {', '.join(get_args(Layout))}, got {self.layout!r}")
        if self.latency not in LATENCIES:
            raise ValueError(f"latency: expected one of {', '.join(LATENCIES)}, got {self.latency!r}")
        if self.layout != "interleaved" and not self.between:
            raise ValueError(f"between: the layout {self.layout!r} needs text between source and target")
        if not 96 <= self.source_capacity <= MOST_CAPACITY or not 384 <= self.target_capacity <= MOST_CAPACITY:
            raise ValueError(
                f"source_capacity: expected from 96 to {MOST_CAPACITY}, target_capacity from 384, got "
                f"{self.source_capacity} and {self.target_capacity}"
            )
        if self.offset < 0 or any(number < 0 for pair in self.heads for number in pair):
            raise ValueError(f"offset and heads: expected numbers from 0, got {self.offset} and {self.heads}")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> LanguageModelSettings:
        """The settings in the entry of a `config.json`.

        Raises:
            ValueError: an entry is unknown, missing or wrong.
        """
        return parse_options(cls, values, ENTRY)

    def instruction(self, latency: str | None) -> str:
        """The text before the source."""
        names = {"source": name_of(self.source), "target": name_of(self.target), "latency": latency or self.latency}
        text = self.before
        for key, name in names.items():
            text = text.replace(f"{{{key}}}", name)
        return text


def chat_settings(vocabulary: Container[str], source: str, target: str, **changes: Any) -> LanguageModelSettings:
    """Settings for a stock chat model, by the marks of turns that its vocabulary has.

    Args:
        vocabulary: names of the model's pieces.
        source, target: codes of the languages.
        changes: other settings, such as ``heads``.
    """
    for before, between, end in _TEMPLATES:
        if end in vocabulary:
            start = "<|begin_of_text|>" if "<|begin_of_text|>" in vocabulary else ""
            values = {"before": start + before, "between": between, "end": (end,)}
            return LanguageModelSettings(source, target, **{**values, **changes})
    plain = f"{name_of(source)}:", f"\n{name_of(target)}:"
    return LanguageModelSettings(source, target, **{"before": plain[0], "between": plain[1], **changes})


def name_of(code: str) -> str:
    """English name of a language, or the code where there is none."""
    return LANGUAGES.get(code, code)


_TEMPLATES = (  # before the source, between it and the target, the end of a turn
    (
        f"<|im_start|>system\n{TRANSLATOR}<|im_end|>\n<|im_start|>user\n{{source}}:",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    (
        f"<|start_header_id|>system<|end_header_id|>\n\n{TRANSLATOR}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n{source}:",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    (f"<s>[INST] {TRANSLATOR}\n\n{{source}}:", "[/INST]", "</s>"),
)
