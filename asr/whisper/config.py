"""Dimensions of a Whisper model, and those of the models OpenAI has published."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from loquent.speech.sizes import check_sizes

# The vocabulary of English-only models; multilingual ones have one text token more, and large-v3 also one language.
ENGLISH_VOCABULARY = 51864


@dataclass(frozen=True)
class WhisperConfig:
    """The sizes of a Whisper model and the heads that time its words.

    Field names and order are those of `ModelDimensions` in openai/whisper, whose checkpoints this describes.
    """

    n_mels: int  # mel bins: 80, or 128 from large-v3 on
    n_audio_ctx: int  # encoder positions in a full window: 1500, that is 30 s at 20 ms each
    n_audio_state: int  # encoder width
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int  # 51864 English-only, 51865 multilingual, 51866 with Cantonese
    n_text_ctx: int  # longest token sequence, prompt included: 448
    n_text_state: int  # decoder width; equal to `n_audio_state`
    n_text_head: int
    n_text_layer: int
    # (decoder layer, head) pairs whose cross-attention follows the audio: they give the word times
    alignment_heads: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, _LARGEST)
        for side, width, heads in (
            ("audio", self.n_audio_state, self.n_audio_head),
            ("text", self.n_text_state, self.n_text_head),
        ):
            if width % heads:
                raise ValueError(f"n_{side}_state {width} is not a multiple of n_{side}_head {heads}")
        if self.n_audio_state != self.n_text_state:
            raise ValueError(
                f"n_audio_state {self.n_audio_state} and n_text_state {self.n_text_state} differ; expected them equal"
            )
        pairs = head_pairs(self.alignment_heads)
        if len(set(pairs)) < len(pairs):
            raise ValueError(f"alignment_heads has {len(pairs) - len(set(pairs))} pairs twice; expected each once")
        for layer, head in pairs:
            if not self.has_head(layer, head):
                raise ValueError(
                    f"alignment head (layer {layer}, head {head}) is outside "
                    f"{self.n_text_layer} layers of {self.n_text_head} heads"
                )

    def has_head(self, layer: int, head: int) -> bool:
        """Whether the decoder has such a layer, and the layer such a head."""
        return 0 <= layer < self.n_text_layer and 0 <= head < self.n_text_head

    @classmethod
    def official(cls, name: str) -> WhisperConfig:
        """The dimensions and alignment heads of a published model, such as "tiny.en", "large-v3" or "turbo".

        Raises:
            ValueError: no model of that name was published by OpenAI.
        """
        name = _ALIASES.get(name, name)
        if name not in _ALIGNMENT_HEADS:
            raise ValueError(f"{name!r} is not an official Whisper model; expected one of {', '.join(OFFICIAL_MODELS)}")
        state, heads, audio_layers, text_layers = _SIZES[name.removesuffix(".en")]
        return cls(
            n_mels=128 if name in _CANTONESE else 80,
            n_audio_ctx=1500,
            n_audio_state=state,
            n_audio_head=heads,
            n_audio_layer=audio_layers,
            n_vocab=ENGLISH_VOCABULARY + (0 if name.endswith(".en") else 2 if name in _CANTONESE else 1),
            n_text_ctx=448,
            n_text_state=state,
            n_text_head=heads,
            n_text_layer=text_layers,
            alignment_heads=_ALIGNMENT_HEADS[name],
        )

    def with_known_alignment_heads(self, name: str = "") -> WhisperConfig:
        """This configuration with alignment heads, for a checkpoint that does not say which they are.

        Args:
            name: the checkpoint's name, if known; only needed to tell large-v1 from large-v2, whose dimensions agree.

        Returns:
            The heads of the official model of the same dimensions; with none, all heads of the upper half of the
            decoder, which is what openai/whisper does.
        """
        sizes = replace(self, alignment_heads=())
        matches = [model for model in OFFICIAL_MODELS if replace(self.official(model), alignment_heads=()) == sizes]
        if matches:
            return replace(self, alignment_heads=_ALIGNMENT_HEADS[name if name in matches else matches[-1]])
        layers, heads = range(self.n_text_layer // 2, self.n_text_layer), range(self.n_text_head)
        return replace(self, alignment_heads=tuple((layer, head) for layer in layers for head in heads))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"alignment_heads": [list(pair) for pair in self.alignment_heads]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WhisperConfig:
        """The inverse of `to_dict`; raises TypeError for missing or unknown fields, ValueError for impossible ones."""
        return cls(**(values | {"alignment_heads": head_pairs(values.get("alignment_heads"))}))


def head_pairs(values: Any) -> tuple[tuple[int, int], ...]:
    """The (decoder layer, head) pairs in a value from a file, which None stands for none in.

    Raises:
        ValueError: it holds something else.
    """
    try:
        pairs = tuple((layer, head) for layer, head in values or ())
    except (TypeError, ValueError):
        pairs = ((None, None),)
    if any(type(number) is not int for pair in pairs for number in pair):
        raise ValueError(f"alignment_heads is {str(values)[:80]}, expected pairs of a decoder layer and a head")
    return pairs


# Far beyond any Whisper, and small enough for tables of names and shapes.
_LARGEST = {
    "n_mels": 512,
    "n_audio_ctx": 2**15,
    "n_audio_state": 2**14,
    "n_audio_head": 2**10,
    "n_audio_layer": 2**8,
    "n_vocab": 2**20,
    "n_text_ctx": 2**15,
    "n_text_state": 2**14,
    "n_text_head": 2**10,
    "n_text_layer": 2**8,
}


# width, heads, encoder layers, decoder layers
_SIZES = {
    "tiny": (384, 6, 4, 4),
    "base": (512, 8, 6, 6),
    "small": (768, 12, 12, 12),
    "medium": (1024, 16, 24, 24),
    "large-v1": (1280, 20, 32, 32),
    "large-v2": (1280, 20, 32, 32),
    "large-v3": (1280, 20, 32, 32),
    "large-v3-turbo": (1280, 20, 32, 4),
}
_ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}
_CANTONESE = ("large-v3", "large-v3-turbo")

# From openai/whisper, whisper/__init__.py, where they are compressed boolean arrays.
# fmt: off
_ALIGNMENT_HEADS: dict[str, tuple[tuple[int, int], ...]] = {
    "tiny.en": ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)),
    "tiny": ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)),
    "base.en": ((3, 3), (4, 7), (5, 1), (5, 5), (5, 7)),
    "base": ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)),
    "small.en": (
        (6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8), (9, 10), (10, 0), (10, 1),
        (10, 2), (10, 3), (10, 6), (10, 11), (11, 2), (11, 4),
    ),
    "small": ((5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5)),
    "medium.en": (
        (11, 4), (14, 1), (14, 12), (14, 14), (15, 4), (16, 0), (16, 4), (16, 9), (17, 12), (17, 14), (18, 7),
        (18, 10), (18, 15), (20, 0), (20, 3), (20, 9), (20, 14), (21, 12),
    ),
    "medium": ((13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4)),
    "large-v1": ((9, 19), (11, 2), (11, 4), (11, 17), (22, 7), (22, 11), (22, 17), (23, 2), (23, 15)),
    "large-v2": (
        (10, 12), (13, 17), (16, 11), (16, 12), (16, 13), (17, 15), (17, 16), (18, 4), (18, 11), (18, 19), (19, 11),
        (21, 2), (21, 3), (22, 3), (22, 9), (22, 12), (23, 5), (23, 7), (23, 13), (25, 5), (26, 1), (26, 12), (27, 15),
    ),
    "large-v3": (
        (7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6),
    ),
    "large-v3-turbo": ((2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14)),
}
# fmt: on
OFFICIAL_MODELS = tuple(_ALIGNMENT_HEADS)
