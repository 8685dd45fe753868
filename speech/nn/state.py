"""Streaming state as an ordinary value: a dataclass of tensors with the stream (slot) axis first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from loquent.speech.nn.transfer import sent, staged

LINE = 64  # bytes that are read at a time
MOST = 2**44  # steps of a stream: years of samples, and far from the end of 64 bits in any arithmetic


def initial(value: float) -> Any:
    """Field of a `State` whose rows start at ``value`` rather than at zero."""
    return dataclasses.field(metadata={"initial": value})


@dataclass
class State:
    """Base of every streaming state.

    Subclasses are dataclasses whose fields are tensors of shape (S, ...), other states, or tuples of states; S is the
    number of slots. Because it is only tensors, a stream can be cloned, moved, saved, rolled back and batched by
    indexing. A field that is an int is a property of the pool, such as the size of a vocabulary; it is not saved.
    """

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Tensor, float]]:
        """Yield (dotted name, tensor, initial value) for every tensor, nested states included."""
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), prefix + field.name
            if isinstance(value, Tensor):
                yield name, value, field.metadata.get("initial", 0)
            elif isinstance(value, State):
                yield from value.leaves(name + ".")
            elif not isinstance(value, int):
                for index, part in enumerate(value):
                    yield from part.leaves(f"{name}.{index}.")

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a state of the same structure with ``function`` applied to every tensor."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, int):
                return value
            return value.map(function) if isinstance(value, State) else tuple(apply(part) for part in value)

        return type(self)(**{field.name: apply(getattr(self, field.name)) for field in dataclasses.fields(self)})

    @property
    def slots(self) -> int:
        """Number of streams this state has room for."""
        return next(self.leaves())[1].shape[0]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes; constant over the life of a stream."""
        return sum(tensor.numel() * tensor.element_size() for _, tensor, _ in self.leaves())

    def pool(self, slots: int) -> Self:
        """A state of so many slots of the same structure, all at the start of a stream.

        On the CPU the system hands out the memory of a slot when something is first written to it.
        """
        made = iter([_filled((slots, *one.shape[1:]), value, one) for _, one, value in self.leaves()])
        return self.map(lambda _: next(made))

    def gather(self, rows: Tensor | list[int]) -> Self:
        """Copy the given slots out, in order."""
        return self.map(lambda tensor: tensor[_index(rows, tensor)])

    def scatter(self, rows: Tensor | list[int], part: Self) -> None:
        """Write ``part`` (as `gather` returned it) into the given slots, in place."""
        for (name, mine, _), (_, theirs, _) in zip(self.leaves(), part.leaves(), strict=True):
            if mine.shape[1:] != theirs.shape[1:]:
                raise ValueError(
                    f"state '{name}' has rows of shape {tuple(mine.shape[1:])}, got {tuple(theirs.shape[1:])}"
                )
            mine[_index(rows, mine)] = theirs.to(mine.device, mine.dtype)

    def reset(self, rows: Tensor | list[int] | None = None) -> None:
        """Return the given slots (all by default) to the start of a stream, in place."""
        for _, tensor, value in self.leaves():
            if rows is None:
                tensor.fill_(value)
            else:
                tensor.index_fill_(0, _index(rows, tensor), value)

    def clone(self) -> Self:
        """Copy every tensor."""
        return self.map(Tensor.clone)

    def to(self, device: torch.device | str) -> Self:
        """Return the state on another device (the same tensors where they are there already)."""
        return self.map(lambda tensor: tensor.to(device))

    def to_bytes(self) -> bytes:
        """Serialise to safetensors; `from_bytes` of a state of the same structure reads it on any process."""
        return safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor, _ in self.leaves()})

    def from_bytes(self, data: bytes) -> None:
        """Overwrite every tensor with the values in ``data``; nothing is changed when names, shapes or dtypes differ.

        Raises:
            ValueError: the data belongs to a state of another structure.
        """
        try:
            loaded = safetensors.torch.load(data)
        except Exception as error:
            raise ValueError(f"not a saved state: {error}") from error
        self.load(loaded)

    def check(self) -> None:
        """Check values that come from elsewhere, before a step relies on them.

        Floats have to be finite. Integers have to be counts, from 0 (or a smaller initial value) to 2**44.
        A state whose integers are used as indices overrides this, calls it, and calls `check_range` for them: an index
        that is out of range must never reach a kernel.

        Raises:
            ValueError: a value is out of range.
        """
        for name, tensor, value in self.leaves():
            if tensor.is_floating_point():
                if not bool(torch.isfinite(tensor).all()):
                    raise ValueError(f"state '{name}' has values that are not finite")
            elif tensor.dtype != torch.bool:
                check_range(name, tensor, min(0, int(value)), MOST)
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            for one in part if isinstance(part, tuple) else (part,):
                if isinstance(one, State):
                    one.check()

    def load(self, loaded: Mapping[str, Tensor]) -> None:
        """Overwrite every tensor with that of its dotted name; nothing is changed when one of them does not fit.

        Raises:
            ValueError: the tensors belong to a state of another structure, or fail its `check`.
        """
        mine = {name: tensor for name, tensor, _ in self.leaves()}
        if loaded.keys() != mine.keys():
            raise ValueError(
                f"saved state has tensors {sorted(loaded)}, expected {sorted(mine)}: was it another model?"
            )
        for name, tensor in mine.items():
            if loaded[name].shape != tensor.shape or loaded[name].dtype != tensor.dtype:
                raise ValueError(
                    f"saved '{name}' is {loaded[name].dtype} {tuple(loaded[name].shape)}, "
                    f"expected {tensor.dtype} {tuple(tensor.shape)}"
                )
        values = iter([loaded[name] for name in mine])
        self.map(lambda _: next(values)).check()
        for name, tensor in mine.items():
            tensor.copy_(loaded[name])


def check_range(name: str, tensor: Tensor, low: int, high: int) -> None:
    """Check integers that a step uses as indices or counts.

    Args:
        low, high: the smallest and the largest that is allowed.

    Raises:
        ValueError: one is outside.
    """
    if tensor.numel() and not low <= int(tensor.min()) <= int(tensor.max()) <= high:
        raise ValueError(f"state '{name}' has values outside {low} … {high}")


def _filled(shape: tuple[int, ...], value: float, like: Tensor) -> Tensor:
    if value or like.device.type != "cpu":
        return like.new_full(shape, value)
    size = like.element_size() * math.prod(shape)
    memory = torch.from_numpy(np.zeros(size + LINE, np.uint8))  # torch writes its zeros, which takes the memory at once
    first = -memory.data_ptr() % LINE
    return memory[first : first + size].view(like.dtype).view(shape)


def _index(rows: Tensor | list[int], tensor: Tensor) -> Tensor:
    return sent(rows, tensor.device) if isinstance(rows, Tensor) else staged(rows, tensor.device)
