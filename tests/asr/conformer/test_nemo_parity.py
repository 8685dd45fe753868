"""What NeMo's own code computes with the same weights (`make_nemo_goldens.py`), computed here, whole and streamed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import loquent.speech
from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.nemo_checkpoint import load_nemo
from loquent.asr.search.transducer_greedy import TransducerGreedySearch
from loquent.speech.audio.files import read_audio
from loquent.speech.nn.streaming import Chunk

DATA = Path(__file__).parent / "data"
CASES = [(name, lookahead) for name in ("hybrid", "rnnt") for lookahead in (13, 6, 1, 0)] + [("ctc", 6)]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def goldens() -> dict[str, Tensor]:
    return load_file(DATA / "nemo_goldens.safetensors")


@pytest.fixture(scope="module")
def audio(goldens: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Samples (B, N) and how many of each row are valid (B,)."""
    sample = Path(loquent.speech.__file__).parent / "assets" / "sample.flac"
    samples, length = torch.from_numpy(read_audio(sample, 16000).samples), goldens["samples"]
    rows = [
        samples[start : start + count] for start, count in zip(goldens["start"].tolist(), length.tolist(), strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), length


@pytest.fixture(scope="module")
def models() -> dict[str, ConformerModel]:
    return {name: load_nemo(DATA / f"nemo_{name}.nemo").build() for name in ("hybrid", "rnnt", "ctc")}


def close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() <= TOLERANCE)


def greedy_tokens(model: ConformerModel, chunks: list[Chunk], slots: Tensor) -> list[list[tuple[int, int]]]:
    """(token, frame) of each row, searched chunk by chunk."""
    assert model.transducer is not None
    search = TransducerGreedySearch(model.transducer)
    state, memos = search.initial_state(int(slots.max()) + 1), [search.start() for _ in slots]
    found: list[list[tuple[int, int]]] = [[] for _ in slots]
    for chunk in chunks:
        for row, advance in enumerate(search.step(chunk, state, slots, memos)):
            found[row] += [(token.id, token.frame) for token in advance.committed]
    return found


def expected_tokens(goldens: dict[str, Tensor], case: str) -> list[list[tuple[int, int]]]:
    tokens, frames = goldens[f"{case}.tokens"].tolist(), goldens[f"{case}.frames"].tolist()
    pairs = [list(zip(*row, strict=True)) for row in zip(tokens, frames, strict=True)]
    return [[pair for pair in row if pair[0] >= 0] for row in pairs]


@pytest.mark.parametrize("name", ["hybrid", "rnnt"])
def test_features_are_nemos(name, models, goldens, audio):
    mel, length = models[name].log_mel(*audio)
    assert close(mel[-1, : length[-1]], goldens[f"{name}.mel"])


@pytest.mark.parametrize(("name", "lookahead"), CASES)
@torch.no_grad()
def test_whole_recordings_give_what_nemo_gives(name, lookahead, models, goldens, audio):
    model, case = models[name], f"{name}.{lookahead}"
    encoded, length = model(*audio, lookahead)
    assert length.tolist() == goldens[f"{name}.length"].tolist()
    for row, steps in enumerate(length.tolist()):
        assert close(encoded[row, :steps], goldens[f"{case}.encoded"][row, :steps])
        if model.ctc:
            assert close(model.ctc(encoded)[row, :steps], goldens[f"{case}.ctc"][row, :steps])
    if model.transducer:
        chunk = Chunk(encoded, length, torch.ones(len(length), dtype=torch.bool))
        assert greedy_tokens(model, [chunk], torch.arange(len(length))) == expected_tokens(goldens, case)


@pytest.mark.parametrize(("name", "lookahead"), CASES)
@torch.no_grad()
def test_streams_give_what_nemo_gives_offline(name, lookahead, models, goldens, audio):
    """Each row in packets of its own sizes; rows end when they end."""
    model, case, (samples, length) = models[name], f"{name}.{lookahead}", audio
    rng, slots = random.Random(f"{name}{lookahead}"), torch.tensor([2, 0, 3])
    features, state = model.features.initial_state(4), model.encoder.initial_state(4)
    model.encoder.set_lookahead(state, slots, lookahead)
    taken, chunks = [0] * len(slots), []
    while any(taken[row] < count for row, count in enumerate(length.tolist())):
        counts = [
            min(rng.choice((0, 1, 160, 333, 8000, 30000)), count - taken[row])
            for row, count in enumerate(length.tolist())
        ]
        packet = torch.zeros(len(slots), max(counts))
        for row, count in enumerate(counts):
            packet[row, :count] = samples[row, taken[row] : taken[row] + count]
            taken[row] += count
        last = torch.tensor([taken[row] == count > 0 for row, count in enumerate(length.tolist())])
        ended = torch.tensor([count == 0 for count in counts]) & last  # in an earlier packet
        going = (~ended).nonzero()[:, 0]
        chunk = Chunk(packet[going], torch.tensor(counts)[going], last[going])
        encoded = model.encoder.step(model.features.step(chunk, features, slots[going]), state, slots[going])
        whole = Chunk(encoded.data.new_zeros(len(slots), *encoded.data.shape[1:]), torch.zeros_like(length), last)
        whole.data[going], whole.length[going] = encoded.data, encoded.length
        chunks.append(whole)
    for row, steps in enumerate(goldens[f"{name}.length"].tolist()):
        encoded = torch.cat([chunk.data[row, : chunk.length[row]] for chunk in chunks])
        assert close(encoded, goldens[f"{case}.encoded"][row, :steps])
        if model.ctc:
            assert close(model.ctc(encoded), goldens[f"{case}.ctc"][row, :steps])
    if model.transducer:
        assert greedy_tokens(model, chunks, slots) == expected_tokens(goldens, case)
