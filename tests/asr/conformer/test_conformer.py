"""The Conformer encoder: one network for training, files and streams, whatever the look-ahead."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from loquent.asr.conformer.encoder import ConformerConfig, ConformerEncoder
from loquent.asr.conformer.model import ConformerModel
from loquent.speech.nn.streaming import Chunk

LOOKAHEADS = (2, 0, 5, 1)


def encoder(*lookaheads: int, **options) -> ConformerEncoder:
    torch.manual_seed(0)
    shape = {"n_mels": 16, "dim": 16, "layers": 2, "heads": 2, "subsampling_channels": 4, "left_context": 12}
    module = ConformerEncoder(ConformerConfig(**shape | options, conv_kernel=5, lookaheads=lookaheads or LOOKAHEADS))
    for parameter in module.parameters():
        if parameter.ndim == 2 and parameter.shape == (2, 8):
            nn.init.normal_(parameter)  # the biases of positions start at zero
    return module.eval()


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_every_lookahead_obeys_the_laws(lookahead, check_streaming):
    others = [one for one in LOOKAHEADS if one != lookahead]
    check_streaming(encoder(lookahead, *others), torch.randn(3, 150, 16), shortest=1, examples=6)


def test_rows_one_by_one_obey_the_laws(check_streaming, monkeypatch):
    monkeypatch.setattr("loquent.asr.conformer.encoder.AT_ONCE", 1)
    check_streaming(encoder(), torch.randn(3, 120, 16), shortest=1, examples=3)


@pytest.mark.parametrize("options", [{"conv_norm": "batch_norm"}, {"xscaling": True, "bias": False}])
def test_variants_obey_the_laws(options, check_streaming):
    module = encoder(**options)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    check_streaming(module, torch.randn(2, 120, 16), shortest=1, examples=3)


def test_padding_changes_nothing():
    module, x, length = encoder(), torch.randn(3, 90, 16), torch.tensor([90, 1, 37])
    with torch.no_grad():
        for lookahead in LOOKAHEADS:
            y = module(x, length, lookahead)
            for row, steps, frames in zip(
                range(3), length.tolist(), module.output_length(length).tolist(), strict=True
            ):
                alone = module(x[row : row + 1, :steps], lookahead=lookahead)[0]
                assert len(alone) == frames
                torch.testing.assert_close(y[row, :frames], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_streams_of_different_lookaheads_share_a_batch_and_change_them(seed):
    """Each stream follows its own schedule; offline, the same schedule gives the same frames."""
    module, rng, steps = encoder(), random.Random(seed), 200
    x, rows = torch.randn(4, steps, 16), torch.tensor([3, 0, 4, 1])
    state = module.initial_state(5)
    schedules = [[(0, LOOKAHEADS[0])] for _ in range(4)]
    outputs, taken = [[] for _ in range(4)], [0] * 4
    with torch.no_grad():
        while min(taken) < steps:
            for stream in range(4):
                if rng.random() < 0.2:
                    lookahead, begun = rng.choice(LOOKAHEADS), sum(len(y) for y in outputs[stream])
                    module.set_lookahead(state, rows[stream : stream + 1], lookahead)
                    if state.held[rows[stream]]:  # the chunk under way stays as it is
                        begun += int(module.sizes[state.chosen[rows[stream]]])
                    schedules[stream].append((begun, lookahead))
            going = [stream for stream in range(4) if taken[stream] < steps]
            count = [min(rng.randint(0, 30), steps - taken[stream]) for stream in going]
            packet = torch.randn(len(going), max(count), 16)
            for row, stream, more in zip(packet, going, count, strict=True):
                row[:more] = x[stream, taken[stream] : taken[stream] + more]
                taken[stream] += more
            chunk = Chunk(packet, torch.tensor(count), torch.tensor([taken[stream] == steps for stream in going]))
            for stream, found in zip(going, module.step(chunk, state, rows[going]).rows(), strict=True):
                outputs[stream].append(found)
        for stream, (y, schedule) in enumerate(zip(outputs, schedules, strict=True)):
            whole = module(x[stream : stream + 1], lookahead=schedule)[0]
            torch.testing.assert_close(torch.cat(y), whole, rtol=1e-4, atol=1e-5)


def test_lookahead_is_what_a_frame_sees():
    module, x = encoder(), torch.randn(1, 160, 16)
    changed = x.clone()
    changed[:, 81:] += 1  # frame 10 is the last that hears nothing of it
    with torch.no_grad():
        for lookahead in LOOKAHEADS:
            differs = (module(x, lookahead=lookahead) - module(changed, lookahead=lookahead)).abs().amax(-1)[0] > 1e-6
            assert int(differs.nonzero()[0]) == 11 // (lookahead + 1) * (lookahead + 1)


def test_training_reaches_every_parameter():
    module = encoder().train()
    module(torch.randn(2, 64, 16), torch.tensor([64, 40]), 1)[:, :5].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"look-aheads of \(2, 0, 5, 1\) frames, not 3"):
        encoder()(torch.randn(1, 20, 16), lookahead=3)
    with pytest.raises(ValueError, match="frame 5, which is in the middle of a chunk"):
        encoder()(torch.randn(1, 80, 16), lookahead=[(0, 2), (5, 0)])
    with pytest.raises(ValueError, match="different numbers"):
        ConformerConfig(lookaheads=(1, 1))
    with pytest.raises(ValueError, match="multiple of heads"):
        ConformerConfig(dim=100, heads=8)


KEPT = {"adaptive_lookahead": (0,), "dropout": (0,), "language": ("8",)}  # values of the following that are taken


@pytest.mark.parametrize("value", [10**9, 0, -3, "8", 8.5, None, True, float("nan"), float("inf")])
def test_configurations_that_cannot_be_are_refused_before_anything_is_made(value, toy_conformer, tmp_path):
    model, tokenizer = toy_conformer
    model.save_pretrained(tmp_path, tokenizer)
    good = json.loads((tmp_path / "config.json").read_text())
    for section in (None, "encoder", "transducer"):
        part = good[section] if section else good
        for name in part.keys() - {"encoder", "transducer", "model_type", "predictor"}:
            if value in KEPT.get(name, ()) or (value is True and isinstance(part[name], bool)):
                continue
            changed = part | {name: value}
            (tmp_path / "config.json").write_text(json.dumps(good | ({section: changed} if section else changed)))
            with pytest.raises(ValueError, match=r"cannot read the model in|expected|must be"):
                ConformerModel.from_pretrained(tmp_path)


def test_weights_that_are_not_finite_are_refused(toy_conformer, tmp_path):
    model, tokenizer = toy_conformer
    model.save_pretrained(tmp_path, tokenizer)
    weights = load_file(tmp_path / "model.safetensors")
    weights["ctc.out.bias"][3] = float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"ctc\.out\.bias has numbers that are not finite"):
        ConformerModel.from_pretrained(tmp_path)
