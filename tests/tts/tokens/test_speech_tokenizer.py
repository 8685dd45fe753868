"""The S3 tokenizer: upstream's tokens from upstream's file, and the laws of streaming under a mask of blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import loquent.speech
from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.audio.files import read_audio
from loquent.tts.tokens.encoder import TokenEncoder, TokenEncoderConfig
from loquent.tts.tokens.finite_scalar import FiniteScalarQuantizer
from loquent.tts.tokens.group_residual import GroupResidualQuantizer
from loquent.tts.tokens.tokenizer import S3Tokenizer, SpeechTokenizer, load_s3_tokenizer

DATA = Path(__file__).parent / "data"
HEAD_DIM = 16  # of the tiny tokenizer; released ones have 64


@pytest.fixture(scope="module")
def goldens() -> dict[str, Tensor]:
    return load_file(DATA / "s3_goldens.safetensors")


@pytest.fixture(scope="module")
def samples() -> Tensor:
    sample = Path(loquent.speech.__file__).parent / "assets" / "sample.flac"
    return torch.from_numpy(read_audio(sample, 16000).samples)


@pytest.fixture(scope="module")
def tokenizer() -> S3Tokenizer:
    pytest.importorskip("onnx")
    return load_s3_tokenizer(DATA / "s3_tiny.onnx", head_dim=HEAD_DIM)


def small(block: int | None, left_context: int = 7) -> TokenEncoder:
    torch.manual_seed(1)
    config = TokenEncoderConfig(6, 16, 4, layers=2, kernel=7, block=block, left_context=left_context)
    encoder = TokenEncoder(config).eval()
    for parameter in encoder.parameters():  # so that every part counts
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def test_features_are_upstreams_to_the_last_frame(goldens: dict[str, Tensor], samples: Tensor) -> None:
    frames = normalize_window(WhisperLogMel(128, mirrored_end=True)(samples[None, :20001]))[0]
    torch.testing.assert_close(frames.sum(1), goldens["log_mel_bins"], rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_whole_recordings_give_what_upstream_gives(
    tokenizer: S3Tokenizer, goldens: dict[str, Tensor], samples: Tensor
) -> None:
    assert tokenizer.config == TokenEncoderConfig(n_mels=128, dim=32, head_dim=HEAD_DIM, layers=2, kernel=31)
    torch.testing.assert_close(tokenizer.encoder(goldens["log_mel"][None])[0], goldens["hidden"], rtol=1e-4, atol=1e-5)
    assert torch.equal(tokenizer(goldens["log_mel"][None])[0], goldens["codes"])
    assert torch.equal(tokenizer.tokens_of(samples[:24000]), goldens["codes"])
    assert goldens["codes"].unique().numel() > 20


def test_the_graph_itself_gives_these_tokens(goldens: dict[str, Tensor]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(DATA / "s3_tiny.onnx"), providers=["CPUExecutionProvider"])
    (codes,) = session.run(None, {session.get_inputs()[0].name: goldens["log_mel"].T[None].numpy()})
    assert codes[0].tolist() == goldens["codes"].tolist()


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_weights_of_s3tokenizer_load(kind: str, tokenizer: S3Tokenizer, tmp_path: Path) -> None:
    weights = {name.replace("quantizer.", "quantizer._codebook."): one for name, one in tokenizer.state_dict().items()}
    file = tmp_path / f"weights.{kind}"
    torch.save(weights, file) if kind == "pt" else save_file(weights, file)
    loaded = load_s3_tokenizer(file, head_dim=HEAD_DIM, block=25)
    assert loaded.config.block == 25
    for name, one in loaded.state_dict().items():
        assert torch.equal(one, tokenizer.state_dict()[name])


def test_other_files_are_refused(tokenizer: S3Tokenizer, tmp_path: Path) -> None:
    weights = dict(tokenizer.state_dict())
    with pytest.raises(ValueError, match=r"missing \['encoder.blocks.1.mlp.0.bias'\]"):
        S3Tokenizer.from_weights(
            {name: one for name, one in weights.items() if name != "encoder.blocks.1.mlp.0.bias"}, head_dim=HEAD_DIM
        )
    with pytest.raises(ValueError, match=r"conv1.bias has shape \[3\], expected \[32\]"):
        S3Tokenizer.from_weights(weights | {"encoder.conv1.bias": torch.zeros(3)}, head_dim=HEAD_DIM)
    with pytest.raises(ValueError, match="there is no weight"):
        S3Tokenizer.from_weights({})
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"damaged\.onnx: not a sound ONNX file"):
        load_s3_tokenizer(tmp_path / "damaged.onnx")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_s3_tokenizer(tmp_path / "none.onnx")


def test_recordings_have_bounds(tokenizer: S3Tokenizer) -> None:
    assert tokenizer.tokens_of(torch.zeros(159)).tolist() == []
    assert tokenizer.tokens_of(torch.zeros(160)).shape == (1,)
    with pytest.raises(ValueError, match="at most 30 s"):
        tokenizer.tokens_of(torch.zeros(30 * 16000 + 1))


@pytest.mark.parametrize(("block", "left_context"), [(1, 4), (3, 7), (5, 2)])
def test_the_encoder_streams(block: int, left_context: int, check_streaming) -> None:
    encoder, x = small(block, left_context), torch.randn(3, 90, 6)
    check_streaming(encoder, x, rtol=1e-4, atol=1e-4, examples=6)


def test_the_mask_of_one_block_is_no_mask() -> None:
    x = torch.randn(2, 90, 6)
    with torch.no_grad():
        torch.testing.assert_close(small(23)(x), small(None)(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(small(22)(x), small(None)(x), atol=1e-2)


def test_what_sees_everything_has_no_state() -> None:
    with pytest.raises(ValueError, match="give the configuration a block"):
        small(None).initial_state(1)


@pytest.mark.parametrize("quantizer", [FiniteScalarQuantizer(16), GroupResidualQuantizer(16, codebook_size=32)])
def test_tokens_stream(quantizer: FiniteScalarQuantizer | GroupResidualQuantizer, check_streaming) -> None:
    torch.manual_seed(2)
    for parameter in quantizer.parameters():
        torch.nn.init.normal_(parameter)
    check_streaming(SpeechTokenizer(small(4), quantizer), torch.randn(2, 70, 6), rtol=0, atol=0, examples=4)


def test_a_state_says_its_size() -> None:
    state = small(3).initial_state(2)
    config = small(3).config
    window = config.layers * (2 * config.left_context + config.kernel // 2) * config.dim  # keys and values, and memory
    stem = 2 * (config.n_mels + config.dim) + 2 * config.dim
    assert state.nbytes == 2 * (4 * (window + stem) + 8 * (3 + config.layers))
