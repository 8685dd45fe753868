from __future__ import annotations

import pytest
import torch

from loquent.asr.heads.transducer import Transducer, TransducerConfig

CONFIGS = [
    TransducerConfig(5, 6, predictor_dim=8, joint_dim=7),
    TransducerConfig(5, 6, predictor_dim=8, joint_dim=7, predictor_layers=2, activation="tanh"),
    TransducerConfig(5, 6, "stateless", predictor_dim=8, joint_dim=7, context=3, activation="sigmoid"),
    TransducerConfig(5, 6, "stateless", predictor_dim=8, joint_dim=7, context=1),
]


@pytest.fixture(params=CONFIGS, ids=["lstm", "two layers", "stateless", "one token"])
def transducer(request: pytest.FixtureRequest) -> Transducer:
    torch.manual_seed(0)
    return Transducer(request.param).eval()


def test_predictor_token_by_token_equals_the_whole(transducer: Transducer) -> None:
    targets = torch.randint(5, (3, 6))
    whole = transducer.joiner.pred(transducer.predictor(targets))
    state = transducer.predictor.initial_state(3)
    tokens = torch.full((3,), transducer.blank)
    for position in range(7):
        out, state = transducer.advance(tokens, state)
        torch.testing.assert_close(out, whole[:, position])
        tokens = targets[:, min(position, 5)]


def test_the_start_is_a_zero_vector_before_and_after_training(transducer: Transducer) -> None:
    optimizer = torch.optim.SGD(transducer.parameters(), 0.1)
    for _ in range(2):
        transducer.loss(
            torch.randn(2, 4, 6), torch.tensor([4, 3]), torch.tensor([[1, 2], [3, 9]]), torch.tensor([2, 1])
        )
        transducer(torch.randn(1, 2, 6), torch.tensor([[1]])).sum().backward()
        optimizer.step()
    assert not transducer.predictor.embedding.weight[transducer.blank].any()


def test_loss_learns_a_text(transducer: Transducer) -> None:
    encoded, length = torch.randn(2, 6, 6), torch.tensor([6, 4])
    targets, target_length = torch.tensor([[1, 4, 2], [3, 0, 99]]), torch.tensor([3, 2])
    optimizer = torch.optim.Adam(transducer.parameters(), 0.03)
    first = transducer.loss(encoded, length, targets, target_length).detach()
    for _ in range(80):
        loss = transducer.loss(encoded, length, targets, target_length)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    assert (loss < 0.2 * first).all()


def test_loss_under_autocast(transducer: Transducer) -> None:
    batch = torch.randn(2, 6, 6), torch.tensor([6, 4]), torch.tensor([[1, 4, 2], [3, 0, 99]]), torch.tensor([3, 2])
    with torch.autocast("cpu", torch.bfloat16):
        loss = transducer.loss(*batch)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, transducer.loss(*batch), rtol=0.03, atol=0.03)
    assert all(parameter.grad is not None for parameter in transducer.parameters())


def test_weights_are_laid_out_as_in_nemo() -> None:
    names = set(Transducer(CONFIGS[1]).state_dict())
    lstm = {f"{kind}_l{n}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for n in range(2)}
    assert names == {
        "predictor.embedding.weight",
        *(f"predictor.lstm.{name}" for name in lstm),
        *(f"joiner.{part}.{kind}" for part in ("enc", "pred", "out") for kind in ("weight", "bias")),
    }


@pytest.mark.parametrize(
    "options", [{"predictor": "gru"}, {"activation": "gelu"}, {"max_symbols": 0}, {"context": 0}, {"vocabulary": 0}]
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        TransducerConfig(**{"vocabulary": 5, "encoder_dim": 6, **options})  # type: ignore[arg-type]
