"""The dimensions of Whisper models: the published ones, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from loquent.asr.whisper.config import OFFICIAL_MODELS, WhisperConfig

TOY = WhisperConfig(80, 15, 8, 2, 2, 51865, 12, 8, 2, 4)


@pytest.mark.parametrize("name", OFFICIAL_MODELS)
def test_official_model_survives_json_and_recovers_its_heads(name: str) -> None:
    config = WhisperConfig.official(name)
    assert WhisperConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert replace(config, alignment_heads=()).with_known_alignment_heads(name) == config


def test_large_v1_and_v2_are_told_apart_by_name() -> None:
    sizes = replace(WhisperConfig.official("large-v1"), alignment_heads=())
    assert sizes.with_known_alignment_heads() == WhisperConfig.official("large-v2")
    assert sizes.with_known_alignment_heads("large-v1") == WhisperConfig.official("large-v1")


def test_unpublished_dimensions_align_with_the_upper_half_of_the_decoder() -> None:
    assert TOY.with_known_alignment_heads().alignment_heads == ((2, 0), (2, 1), (3, 0), (3, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_mels": 0}, "n_mels is '0', expected a whole number from 1 to 512"),
        ({"n_vocab": "51864"}, "n_vocab is '51864'"),
        ({"n_audio_head": 3}, "n_audio_state 8 is not a multiple of n_audio_head 3"),
        ({"n_text_state": 16}, "expected them equal"),
        ({"alignment_heads": ((4, 0),)}, r"\(layer 4, head 0\) is outside 4 layers"),
    ],
)
def test_impossible_dimensions_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TOY, **change)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'huge' is not an official Whisper model; expected one of tiny\.en, tiny"):
        WhisperConfig.official("huge")
