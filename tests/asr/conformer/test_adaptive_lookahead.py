"""Look-ahead decided per frame: exact streaming, honest latency, and training that learns where it pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from loquent.asr.conformer.adaptive import AdaptiveConformerEncoder
from loquent.asr.conformer.encoder import ConformerConfig, ConformerEncoder
from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.tokenizer import SubwordTokenizer

CONFIG = ConformerConfig(
    n_mels=8,
    dim=16,
    layers=3,
    heads=2,
    conv_kernel=3,
    subsampling_channels=4,
    left_context=5,
    lookaheads=(2, 0),
    dropout=0.0,
)
MOST = 3


def make(seed: int = 2, spread: float = 4.0) -> AdaptiveConformerEncoder:
    """Encoder with random weights whose schedulers decide differently from frame to frame."""
    torch.manual_seed(seed)
    encoder = AdaptiveConformerEncoder(CONFIG, MOST).eval()
    for parameter in encoder.subsampling.parameters():  # so that frames differ
        if parameter.ndim == 1:
            torch.nn.init.zeros_(parameter)
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.scheduler[-1].weight, std=spread)
        torch.nn.init.constant_(layer.scheduler[-1].bias, 0.5)
    return encoder


def mel(batch: int, steps: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, steps, CONFIG.n_mels, generator=torch.Generator().manual_seed(seed))


def test_decisions_differ_between_frames() -> None:
    """Else the other tests would prove little."""
    encoding = make().encode(mel(3, 300))
    assert 0.3 < float(encoding.mean_ahead) < MOST - 0.3
    assert len(encoding.wait.unique()) > MOST


def test_laws(check_streaming: Callable[..., None]) -> None:
    check_streaming(make(), mel(3, 200), punctual=False, tight=False, examples=4)


@pytest.mark.parametrize("bias", [-50.0, 50.0])
def test_laws_when_all_look_alike(bias: float, check_streaming: Callable[..., None]) -> None:
    """Nobody looks ahead, or everybody as far as possible: then `inputs_for` is exact."""
    encoder = make(spread=0)
    for layer in encoder.layers:
        torch.nn.init.constant_(layer.scheduler[-1].bias, bias)
    check_streaming(encoder, mel(2, 160), punctual=bias > 0, tight=bias > 0, examples=3)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 100), steps=st.integers(1, 120))
def test_the_reported_wait_is_when_frames_come(seed: int, steps: int) -> None:
    """Fed one encoder frame's worth at a time, frame i comes after exactly wait[i] further frames."""
    encoder, x = make(seed), mel(1, steps, seed)
    with torch.no_grad():
        encoding = encoder.encode(x)
        state, come, waits = encoder.initial_state(1), 0, []
        for frame in range(steps):
            chunk = x[:, frame : frame + 1]
            out = encoder.step(chunk, state, last=frame == steps - 1)
            come = int(encoder.output_length(torch.tensor([steps]))) if frame == steps - 1 else frame // 8 + 1
            waits += [come - 1 - index for index in range(len(waits), len(waits) + int(out.length))]
    assert waits == encoding.wait[0].tolist()


def test_a_frame_depends_on_nothing_after_its_wait() -> None:
    encoder, x = make(), mel(1, 200)
    with torch.no_grad():
        encoding = encoder.encode(x)
        for frame in range(0, 20, 3):
            seen = 8 * (frame + int(encoding.wait[0, frame]))  # the last mel frame that has come
            changed = x.clone()
            changed[:, seen + 1 :] += 3
            other = encoder(changed)
            torch.testing.assert_close(other[:, : frame + 1], encoding.encoded[:, : frame + 1], rtol=1e-4, atol=1e-5)


def test_the_queue_is_bounded_and_rows_are_independent_of_padding() -> None:
    encoder, x = make(), mel(2, 160)
    length = torch.tensor([160, 91])
    with torch.no_grad():
        encoding = encoder.encode(x, length)
        alone = encoder.encode(x[1:, :91])
    frames = int(encoding.length[1])
    torch.testing.assert_close(encoding.encoded[1, :frames], alone.encoded[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(encoding.wait[1, :frames], alone.wait[0])
    state = encoder.initial_state(1)
    assert all(layer.waiting.shape[1] == MOST for layer in state.layers)


def test_training_without_noise_is_inference() -> None:
    encoder, x, length = make(), mel(2, 120), torch.tensor([120, 90])
    hard = encoder.encode(x, length)
    encoder.train()
    encoder.temperature = 0
    trained = encoder.encode(x, length)
    for row, frames in enumerate(hard.length.tolist()):
        torch.testing.assert_close(trained.encoded[row, :frames], hard.encoded[row, :frames], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trained.mean_wait, hard.mean_wait)
    torch.testing.assert_close(trained.mean_ahead, hard.mean_ahead)
    encoder.temperature = 1
    assert not torch.equal(encoder.encode(x, length).wait, hard.wait)


@pytest.mark.parametrize("regulariser", ["mean_wait", "mean_ahead"])
def test_descending_on_a_regulariser_lowers_it(regulariser: str) -> None:
    encoder, x = make().train(), mel(2, 120)
    optimizer = torch.optim.Adam(encoder.layers.parameters(), lr=0.01)
    before = float(getattr(encoder.eval().encode(x), regulariser))
    for _ in range(12):
        optimizer.zero_grad()
        getattr(encoder.train().encode(x), regulariser).backward()
        optimizer.step()
    assert float(getattr(encoder.eval().encode(x), regulariser)) < 0.6 * before


def test_it_starts_from_a_fixed_encoder() -> None:
    torch.manual_seed(0)
    fixed = ConformerEncoder(CONFIG).eval()
    adaptive = AdaptiveConformerEncoder(CONFIG, MOST).eval()
    adaptive.take_weights(fixed)
    for name, weight in fixed.state_dict().items():
        assert torch.equal(adaptive.state_dict()[name], weight), name
    x = mel(1, 100)
    for layer in adaptive.layers:
        torch.nn.init.constant_(layer.scheduler[-1].bias, -50.0)
    torch.testing.assert_close(adaptive(x), fixed(x, lookahead=0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="does not fit"):
        adaptive.take_weights(ConformerEncoder(replace(CONFIG, dim=32)))
    with pytest.raises(ValueError, match="decides by itself"):
        adaptive(x, lookahead=0)
    with pytest.raises(ValueError, match="nothing to decide"):
        AdaptiveConformerEncoder(CONFIG, 0)


def test_training_learns_to_look_ahead_only_where_it_pays() -> None:
    """Frames that ask are to give the value of the next one, the others nothing: only those that ask should wait."""
    torch.manual_seed(0)
    config = replace(CONFIG, dim=32, layers=1, conv_kernel=1, subsampling_channels=8, left_context=2)
    encoder, readout = AdaptiveConformerEncoder(config, 1), torch.nn.Linear(32, 1)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *readout.parameters()], lr=5e-3, weight_decay=0)
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        asks = torch.rand(8, 24, generator=generator) < 0.4
        value = torch.randint(0, 2, (8, 24), generator=generator).float() * 2 - 1
        x = torch.stack([asks.float(), value], 2).repeat_interleave(4, 2) * 4  # half of the 8 bins each
        x = x.repeat_interleave(8, 1)[:, 7:]  # encoder frame j hears mel frames up to 8 j
        return x, asks[:, :-1], torch.where(asks[:, :-1], value[:, 1:], 0)

    steps = 300
    for step in range(steps):
        progress = max(0.0, 2 * step / steps - 1)  # the first half as if with a fixed look-ahead
        encoder.layers[0].scheduler.requires_grad_(progress > 0)
        encoder.temperature = 0.1**progress
        x, _, target = batch()
        encoding = encoder.encode(x)
        loss = F.mse_loss(readout(encoding.encoded)[:, :-1, 0], target)
        if progress:
            loss = loss + 0.1 * encoding.mean_wait
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval()
    with torch.no_grad():
        x, asks, target = batch()
        encoding = encoder.encode(x)
        error = F.mse_loss(readout(encoding.encoded)[:, :-1, 0], target)
    ahead = encoding.ahead[:, :-1]
    assert error < 0.1, error
    assert ahead[asks].mean() > 0.9, ahead[asks].mean()
    assert ahead[~asks].mean() < 0.1, ahead[~asks].mean()


def test_a_model_keeps_its_schedulers(tmp_path: Path, toy_conformer: tuple[ConformerModel, SubwordTokenizer]) -> None:
    fixed, tokenizer = toy_conformer
    model = ConformerModel(replace(fixed.config, adaptive_lookahead=2)).eval()
    assert isinstance(model.encoder, AdaptiveConformerEncoder)
    model.encoder.take_weights(fixed.encoder)
    model.save_pretrained(tmp_path, tokenizer)
    loaded, _ = ConformerModel.from_pretrained(tmp_path)
    assert loaded.config == model.config
    samples = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(samples)[0], model(samples)[0])
