"""The network as it is trained, and as it runs in a stream, are the same function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from loquent.translate.model import Draft, Search
from loquent.translate.seq2seq.checkpoint import save_model
from loquent.translate.seq2seq.layers import SSRU, self_attention
from loquent.translate.seq2seq.model import Seq2SeqTranslator
from loquent.translate.seq2seq.network import seen

every_decoder = pytest.mark.parametrize("decoder", ["ssru", "attention"])


def test_layers_obey_the_laws(toy: ModuleType, check_streaming: Callable[..., None]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 30, 32)
    check_streaming(SSRU(32), x)
    check_streaming(self_attention(toy.toy_network().network.config), x)


@every_decoder
def test_wait_k_in_a_stream_is_the_network_from_scratch_on_each_prefix(toy: ModuleType, decoder: str) -> None:
    """Whatever was committed, each next piece has the scores that the masked network gives the whole pair."""
    model = toy.toy_network(decoder)
    pieces, k = model.codec, 2
    source, target = toy.made_up(9, 3), toy.made_up(7, 4)
    words = [pieces.encode(word) for word in source.split()]
    wanted = [*pieces.encode(target), pieces.end]
    numbers = pieces.words(wanted[:-1])
    given = torch.tensor([[model.tag, *wanted[:-1]]])
    read = torch.tensor([[*(piece for word in words for piece in word), pieces.end]])
    source_words = torch.tensor([[n for n, word in enumerate([*words, [0]]) for _ in word]])
    mask = seen(source_words, torch.tensor([[*numbers, numbers[-1] + 1]]), torch.tensor([k]))
    with torch.no_grad():
        expected = model.network.logits(model.network(read, given, mask))[0]

    state, row = model.initial_state(3), torch.tensor([1])
    got, had = [], 0
    for at, number in enumerate([*numbers, numbers[-1] + 1]):
        while had < min(number + k, len(words) + 1):
            model.read([words[had] if had < len(words) else []], [had == len(words)], state, row)
            had += 1
        got.append(_next_logits(model, state, row))
        if at < len(wanted) - 1:
            model.commit([Draft([wanted[at]], [0], [1.0])], [1], state, row)
    torch.testing.assert_close(torch.stack(got), torch.where(model.never == 0, expected, 0), rtol=1e-4, atol=1e-4)


@every_decoder
def test_a_draft_leaves_no_trace(toy: ModuleType, decoder: str) -> None:
    model = toy.toy_network(decoder)
    state, rows = model.initial_state(2), torch.tensor([0, 1])
    model.read([model.codec.encode("ba de"), model.codec.encode("ko")], [False, False], state, rows)
    before = state.to_bytes()
    first = model.draft([Search(), Search(beam=3, most_pieces=9)], state, rows)
    assert state.to_bytes() == before
    assert model.draft([Search()], state, rows[:1])[0].pieces == first[0].pieces


def test_reading_costs_the_same_however_much_was_read(toy: ModuleType) -> None:
    """The state of a stream does not grow, and what was forgotten is gone: the same words score the same."""
    model = toy.toy_network()
    rows = torch.tensor([0])
    state = model.initial_state(1)
    size = state.nbytes
    words = [model.codec.encode(word) for word in toy.made_up(60, 5).split()]
    for word in words:
        model.forget([max(int(state.held[0]) + len(word) - 20, 0)], state, rows)
        model.read([word], [False], state, rows)
        assert int(state.held[0]) <= 20
    assert state.nbytes == size
    assert int(state.read[0]) == sum(map(len, words))
    draft = model.draft([Search(most_pieces=8)], state, rows)[0]
    assert min(draft.attended) >= int(state.read[0]) - 20


def test_too_much_is_refused(toy: ModuleType) -> None:
    model = toy.toy_network()
    state = model.initial_state(1)
    with pytest.raises(ValueError, match="more than 192 source pieces"):
        model.read([[5] * 193], [False], state, torch.tensor([0]))


def test_a_saved_model_is_the_same(toy: ModuleType, tmp_path: Path) -> None:
    model = toy.toy_network()
    network = model.network.half().float()  # what is saved
    save_model(tmp_path, network, model.codec, "en", "es")
    assert Seq2SeqTranslator.owns(tmp_path)
    loaded = Seq2SeqTranslator.load(tmp_path, torch.device("cpu"))
    assert loaded.fingerprint == Seq2SeqTranslator(network, model.codec, "en", "es").fingerprint
    with pytest.raises(ValueError, match="no tag for 'sv'"):
        Seq2SeqTranslator(network, model.codec, "en", "sv")


def _next_logits(model: Seq2SeqTranslator, state: object, row: torch.Tensor) -> torch.Tensor:
    from loquent.translate.seq2seq.model import _Stepper

    stepper = _Stepper(model, state, row)  # type: ignore[arg-type]
    scores = stepper.step(stepper.first).logits[0]
    return torch.where(model.never == 0, scores, 0)
