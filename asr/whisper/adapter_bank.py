"""Many adapters beside the weights of one model: each stream has one of them, or none, and all share a batch."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import nn

from loquent.asr.whisper.lora import LoraAdapter, adapted_layer, check_adapter
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.quantization import int8_layers
from loquent.kernels.batched_lora import AdapterRows, LoraPool
from loquent.speech.nn.low_rank import Adapters

NONE = "none"  # names no adapter: the model as it is


class User(Protocol):
    """The memo of a stream."""

    adapter: str | None


class AdapterBank:
    """Adapters of a model by name; they come and go while streams run.

    An adapter has a slot in a pool for each layer that any adapter changes. Pools grow by being replaced, so a step
    under way in another thread keeps those it began with.

    Attributes:
        default: name of the adapter of streams that choose none, if they are to have one.
    """

    def __init__(self, model: Whisper) -> None:
        self.model = model
        self._pools: dict[nn.Module, LoraPool] = {}
        self._adapters: dict[str, LoraAdapter] = {}
        self._slots: dict[str, int] = {}
        self._default: str | None = None
        self._merged: tuple[str, Whisper] | None = None
        self._users: weakref.WeakValueDictionary[int, User] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()  # of add and remove

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._adapters))

    def __len__(self) -> int:
        return len(self._adapters)

    def __getitem__(self, name: str) -> LoraAdapter:
        try:
            return self._adapters[name]
        except KeyError:
            known = ", ".join(self._adapters) or "none"
            raise ValueError(f"no adapter is called {name!r}; loaded: {known}") from None

    @property
    def default(self) -> str | None:
        """Name of the adapter of streams that choose none; None for the model as it is."""
        return self._default

    @default.setter
    def default(self, name: str | None) -> None:
        if name is not None:
            self[name]
        self._default = name

    def default_for(self, language: str | None, live: bool) -> str | None:
        """Name of the adapter of a stream that chooses none: the default, or if that is for another language the first
        one for the stream's own. None if the default was trained to be streamed with, and the stream does not.

        Args:
            language: code, or None if it is not known.
            live: whether the stream's policy is "incremental".

        Raises:
            ValueError: there are adapters to stream with, but none for this language.
        """
        if self._default is None:
            return None
        info = self[self._default].info
        if info.chunk_ms and not live:
            return None
        if language is None or info.language in (None, language):
            return self._default
        for name, adapter in tuple(self._adapters.items()):
            if adapter.info.language == language and bool(adapter.info.chunk_ms) == bool(info.chunk_ms):
                return name
        if info.chunk_ms:
            raise ValueError(
                f"no adapter for live audio in {language!r} is loaded, {self._default!r} is for {info.language!r}; "
                "load one, or use the policy 'local-agreement'"
            )
        return self._default

    def add(self, name: str, adapter: LoraAdapter) -> None:
        """Offer an adapter to streams that begin from now on.

        Raises:
            ValueError: the name is taken or not one, or the adapter does not fit the model or is a DoRA.
        """
        with self._lock:
            if name in self._adapters:
                raise ValueError(f"an adapter is called {name!r} already; remove it first, or choose another name")
            if not name or name == NONE:
                raise ValueError(f"{name!r} cannot be the name of an adapter")
            check_adapter(adapter, self.model)
            if adapter.scales_weights:
                raise ValueError(
                    f"the adapter {name!r} is a DoRA, which scales the model's own weights: no stream can have it by "
                    "itself. Merge it (`merge`, or --adapter without a name), or train one with use_dora=False"
                )
            taken = set(self._slots.values())
            slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
            room = 1 << max(*taken, slot, 0).bit_length()  # doubles as it grows
            pools = {
                layer: pool if slot < len(pool.ranks) else pool.resized(room, 0) for layer, pool in self._pools.items()
            }
            for layer_name, factors in adapter.factors.items():
                layer = adapted_layer(adapter, layer_name, self.model)
                rank = len(factors.a)
                pool = pools.get(layer)
                if pool is None:
                    pool = LoraPool.empty(room, layer.in_features, rank, layer.out_features, layer.weight.detach())
                elif rank > pool.up.shape[1]:
                    pool = pool.resized(room, rank)
                pool.put(slot, factors.a.to(layer.weight), factors.b.to(layer.weight), factors.scale)
                pools[layer] = pool
            self._pools = pools
            self._adapters[name], self._slots[name] = adapter, slot

    def remove(self, name: str) -> None:
        """Take an adapter away.

        Raises:
            ValueError: there is none of that name, or streams use it.
        """
        with self._lock:
            self[name]
            if users := self.users(name):
                raise ValueError(f"{users} streams use the adapter {name!r}; remove it when they have ended")
            slot = self._slots.pop(name)
            del self._adapters[name]
            if self._default == name:
                self._default = self._merged = None
            pools = {}
            for layer, pool in self._pools.items():
                if slot < len(pool.ranks):
                    pool.clear(slot)
                if bool(pool.ranks.any()):
                    pools[layer] = pool
            self._pools = pools

    def merged(self) -> tuple[str, Whisper] | None:
        """The default adapter's digest, and the model with this adapter in its weights, in int8.

        The bank makes it once for each default. None without a default, and for a model that computes in float32: for
        each adapter there would be as many weights again.
        """
        if self._default is None or self.model.decoder.int8_vocabulary is None:
            return None
        adapter = self[self._default]
        if self._merged is None or self._merged[0] != adapter.digest:
            self._merged = adapter.digest, int8_layers(self.model, adapter)
        return self._merged

    def users(self, name: str) -> int:
        """Number of streams that have this adapter."""
        return sum(user.adapter == name for user in list(self._users.values()))

    def acquire(self, user: User) -> None:
        """Count a stream among the users of its adapter, until it is released or no longer exists.

        Raises:
            ValueError: there is no such adapter.
        """
        if user.adapter is not None:
            self[user.adapter]
            self._users[id(user)] = user

    def release(self, user: User) -> None:
        """Count a stream no more."""
        self._users.pop(id(user), None)

    def choose(self, users: Sequence[User]) -> Adapters | None:
        """The adapters of a batch of streams; None when none has one, which costs nothing."""
        if all(user.adapter is None for user in users):
            return None
        index = [-1 if user.adapter is None else self._slots[user.adapter] for user in users]
        return Adapters(self._pools, AdapterRows.of(torch.tensor(index)))

    @property
    def nbytes(self) -> int:
        """Bytes of all pools."""
        return sum(tensor.nbytes for pool in self._pools.values() for tensor in (pool.down, pool.up))
