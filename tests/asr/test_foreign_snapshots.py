"""Snapshots of recognisers come from anywhere: a stream goes on, is refused, or ends alone; no neighbour notices."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.options import ConformerOptions
from loquent.asr.conformer.task import ConformerStreamingTask
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.snapshot import pack, unpack
from loquent.speech.runtime.task import Task

WRONG = [
    -1, 1, 7, 10**6, 2**44, -(2**63), 2**63, 10**400, 0.5, -1e300, 1e300, float("inf"), True, False, None, "", "x",
    "de", "y" * 5000, [], [[]], [1, 2, 3], [[0, 1]], [[0, 1, 0.5]] * 3, [50_000_000], {}, {"a": 1}, KeyError,
]  # fmt: skip
FAR = (-1, 1, 3, 64, 2**31, 2**44, -(2**63), 2**63 - 1)
KINDS = ["local-agreement", "incremental", "ctc", "ctc-beam", "transducer", "transducer-beam", "adaptive", "stateless"]


@pytest.fixture(scope="module", params=KINDS)
def task(
    request: pytest.FixtureRequest,
    toy_whisper: Whisper,
    tokenizer: WhisperTokenizer,
    toy_conformer: tuple[ConformerModel, SubwordTokenizer],
    toy_adaptive: tuple[ConformerModel, SubwordTokenizer],
) -> Task:
    kind = request.param
    if kind in ("local-agreement", "incremental"):
        options = StreamingOptions(policy=kind, chunk_ms=500, overlap_s=1.0, tokens_per_second=4.0)
        return WhisperStreamingTask(toy_whisper, tokenizer, options)
    if kind == "adaptive":
        return ConformerStreamingTask(*toy_adaptive, ConformerOptions(head="ctc"))
    model, subwords = toy_conformer
    if kind == "stateless":
        transducer = dataclasses.replace(model.config.transducer, predictor="stateless")
        torch.manual_seed(3)
        model = ConformerModel(dataclasses.replace(model.config, transducer=transducer)).eval()
    head, _, beam = kind.replace("stateless", "transducer").partition("-")
    return ConformerStreamingTask(model, subwords, ConformerOptions(head=head, beam_size=3 if beam else 1))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple, new: Any) -> Any:
    result = copy.deepcopy(value)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    if new is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return result


def packed(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bytes:
    return pack(safetensors.torch.save(tensors, {"session": json.dumps(header)}))


class Bench:
    """An engine, the snapshot of a stream in it, and a neighbour that steps along with what is made of the snapshot."""

    def __init__(self, task: Task, talk: np.ndarray) -> None:
        self.engine, self.talk = Engine(task, capacity=2), talk
        self.neighbour = self.engine.open()
        self.neighbour.push(talk[:20_000])
        session = self.engine.open(**({"phrases": ("fox",)} if isinstance(task, ConformerStreamingTask) else {}))
        session.push(talk[:70_000])
        header, self.tensors = unpack(session.snapshot())
        self.header = dict(header)
        session.close()

    def tries(self, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bool:
        """Whether the stream goes on; its neighbour steps along with it."""
        neighbour = self.neighbour
        try:
            session = self.engine.restore(packed(header, tensors))
        except ValueError:
            assert self.engine.active == 1
            return False
        saved = neighbour.snapshot()
        session.feed(self.talk[70_000:82_000])
        session.end()
        neighbour.feed(self.talk[20_000:30_000])
        steps = 0
        while session.ready or neighbour.ready:
            self.engine.step()
            steps += 1
            assert steps < 100
        heard = [event.type for event in neighbour.drain()]
        session.close()
        neighbour.close()
        self.neighbour = self.engine.restore(saved)
        assert "failure" not in heard
        return True


@pytest.fixture(scope="module")
def bench(task: Task, talk: np.ndarray) -> Bench:
    return Bench(task, talk)


def test_what_is_sound_goes_on(bench: Bench) -> None:
    assert bench.tries(bench.header, bench.tensors)


def test_memos_may_say_anything(bench: Bench) -> None:
    draw = random.Random(1)
    paths = [("memo", *path) for path in places(bench.header["memo"]) if path]
    for path in paths:
        for new in draw.sample(WRONG, 2):
            bench.tries(changed(bench.header, path, new), bench.tensors)


def test_states_may_hold_anything(bench: Bench) -> None:
    draw = random.Random(2)
    for name, tensor in bench.tensors.items():
        if not name.startswith("state."):
            continue
        if tensor.dtype == torch.long:
            for value in draw.sample(FAR, 2):
                for bad in (torch.full_like(tensor, value), tensor + value):
                    bench.tries(bench.header, bench.tensors | {name: bad})
        elif tensor.is_floating_point() and draw.random() < 0.1:
            for value in (float("nan"), 1e30):
                bench.tries(bench.header, bench.tensors | {name: torch.full_like(tensor, value)})
        elif tensor.dtype == torch.bool:
            bench.tries(bench.header, bench.tensors | {name: ~tensor})
