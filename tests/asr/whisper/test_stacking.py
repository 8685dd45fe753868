"""A stack of adapters is one adapter that does what they do together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loquent.asr.whisper.lora import AdapterInfo, LoraAdapter, LoraFactors, load_adapter, merge, save_adapter
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.stacking import stack

LIVE = AdapterInfo("toy", None, "en", (100, 300))


def adapter(names: str, rank: int, seed: int, info: AdapterInfo | None = None) -> LoraAdapter:
    draw = torch.Generator().manual_seed(seed)

    def factors() -> LoraFactors:
        a, b = (torch.randn(shape, generator=draw) for shape in ((rank, 64), (64, rank)))
        return LoraFactors(a, b, 0.25 * seed)

    return LoraAdapter({f"encoder.blocks.0.attn.{name}": factors() for name in names.split()}, info or AdapterInfo())


def test_merging_the_stack_is_merging_each(toy_whisper: Whisper, tmp_path: Path) -> None:
    one, two = adapter("query value", 2, 1, replace(LIVE, chunk_ms=())), adapter("value out", 3, 2, LIVE)
    both = stack(one, two)
    assert (both.info, both.rank) == (LIVE, 5)
    save_adapter(tmp_path, both)
    merged = [Whisper.from_weights(toy_whisper.config, toy_whisper.state_dict()) for _ in range(2)]
    merge(merged[0], one)
    merge(merged[0], two)
    merge(merged[1], load_adapter(tmp_path))
    for name, weight in merged[0].state_dict().items():
        torch.testing.assert_close(merged[1].state_dict()[name], weight)


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ([], "nothing to stack"),
        ([adapter("out", 1, 1, LIVE), adapter("out", 1, 2, replace(LIVE, chunk_ms=(500,)))], "two of the adapters"),
        ([adapter("out", 1, 1, LIVE), adapter("out", 1, 2, AdapterInfo(language="de"))], "different languages: de, en"),
        ([adapter("out", 1, 1, AdapterInfo(base_digest=one)) for one in "ab"], "different models: a, b"),
        ([LoraAdapter({"x": LoraFactors(torch.ones(1, 2), torch.ones(2, 1), 1.0, torch.ones(2))})], "DoRA"),
        (
            [LoraAdapter({"x": LoraFactors(torch.ones(1, n), torch.ones(2, 1), 1.0)}) for n in (2, 3)],
            r"'x' in the sizes",
        ),
    ],
)
def test_what_cannot_be_stacked(adapters: list[LoraAdapter], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stack(*adapters)
