"""Several adapters of one Whisper as one: that of a domain and the one for live audio, for instance.

A sum of low-rank products is a low-rank product: with A = [A₁; A₂] and B = [s₁ B₁, s₂ B₂],
B A = s₁ B₁ A₁ + s₂ B₂ A₂. So the stack is exact, and its rank is the sum of the ranks.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from loquent.asr.whisper.lora import AdapterInfo, LoraAdapter, LoraFactors


def stack(*adapters: LoraAdapter) -> LoraAdapter:
    """An adapter that does what several do together.

    Args:
        adapters: of the same model, at most one of them for live audio; the stack is for live audio if one is.

    Raises:
        ValueError: there are none, one is a DoRA, two are for live audio, or their models or languages differ.
    """
    if not adapters:
        raise ValueError("there is nothing to stack; expected at least one adapter")
    if any(adapter.scales_weights for adapter in adapters):
        raise ValueError("a DoRA adapter scales the model's own weights and cannot be stacked; merge it into the model")
    infos = [adapter.info for adapter in adapters]
    live = {info.chunk_ms for info in infos if info.chunk_ms}
    if sum(bool(info.chunk_ms) for info in infos) > 1:
        raise ValueError(f"two of the adapters are for live audio, in chunks of {sorted(live)} ms; stack one of them")
    info = AdapterInfo(
        base=next((info.base for info in infos if info.base), None),
        base_digest=_common("models", (info.base_digest for info in infos)),
        language=_common("languages", (info.language for info in infos)),
        chunk_ms=next(iter(live), ()),
        block_ms=next((info.block_ms for info in infos if info.chunk_ms), None),
    )
    names = sorted({name for adapter in adapters for name in adapter.factors})
    factors = {name: [one.factors[name] for one in adapters if name in one.factors] for name in names}
    return LoraAdapter({name: _sum(name, ones) for name, ones in factors.items()}, info)


def _sum(name: str, factors: list[LoraFactors]) -> LoraFactors:
    shapes = {(len(one.b), one.a.shape[1]) for one in factors}
    if len(shapes) > 1:
        raise ValueError(f"the adapters change {name!r} in the sizes {sorted(shapes)}; expected those of one model")
    return LoraFactors(
        torch.cat([one.a for one in factors]), torch.cat([one.scale * one.b for one in factors], dim=1), scale=1.0
    )


def _common(what: str, values: Iterable[str | None]) -> str | None:
    found = sorted({value for value in values if value is not None})
    if len(found) > 1:
        raise ValueError(f"the adapters are for different {what}: {', '.join(found)}")
    return found[0] if found else None
