"""What is written for other programs is what they read: transformers, and CTranslate2's converter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from loquent.asr.whisper.checkpoint import load_whisper
from loquent.asr.whisper.hugging_face import save_hugging_face
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.hub import resolve


@pytest.fixture(scope="module")
def written(toy_whisper: Whisper, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    files = load_whisper(resolve("tiny.en").path).tokenizer_files
    save_hugging_face(folder, toy_whisper.config, toy_whisper.state_dict(), files)
    return folder


def test_transformers_reads_it(toy_whisper: Whisper, tokenizer: WhisperTokenizer, written: Path) -> None:
    theirs = WhisperForConditionalGeneration.from_pretrained(written).eval()
    mel = torch.randn(1, 2 * toy_whisper.config.n_audio_ctx, 80, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[*tokenizer.sot_sequence(), *tokenizer.encode(" And so")]])
    with torch.no_grad():
        ours = toy_whisper.decoder(tokens, toy_whisper.encoder(mel))
        logits = theirs(input_features=mel.mT, decoder_input_ids=tokens).logits
    torch.testing.assert_close(logits, ours, rtol=1e-3, atol=1e-3)
    config = theirs.generation_config
    assert config.alignment_heads == [list(pair) for pair in toy_whisper.config.alignment_heads]
    assert (config.decoder_start_token_id, config.eos_token_id) == (tokenizer.sot, tokenizer.eot)
    assert config.no_timestamps_token_id == tokenizer.no_timestamps
    assert theirs.generate(mel.mT, max_new_tokens=3).shape[0] == 1

    processor = WhisperProcessor.from_pretrained(written)
    ids = processor.tokenizer(" And so", add_special_tokens=False).input_ids
    assert ids == tokenizer.encode(" And so")
    features = processor(torch.zeros(16_000).numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    assert features.shape == mel.mT.shape


def test_we_read_it(toy_whisper: Whisper, written: Path) -> None:
    loaded = load_whisper(written)
    assert loaded.source_format == "huggingface"
    assert loaded.config == toy_whisper.config
    assert all(torch.equal(loaded.weights[name], weight) for name, weight in toy_whisper.state_dict().items())


def test_the_converter_of_ctranslate2_reads_it(toy_whisper: Whisper, written: Path, tmp_path: Path) -> None:
    converters = pytest.importorskip("ctranslate2.converters")
    copied = ["tokenizer.json", "preprocessor_config.json"]
    converters.TransformersConverter(str(written), copy_files=copied).convert(str(tmp_path / "converted"))
    loaded = load_whisper(tmp_path / "converted")
    assert (loaded.source_format, loaded.config) == ("ctranslate2", toy_whisper.config)
    for name, weight in toy_whisper.state_dict().items():
        torch.testing.assert_close(loaded.weights[name].float(), weight)


def test_it_needs_a_tokenizer_and_all_weights(toy_whisper: Whisper, tmp_path: Path) -> None:
    weights = toy_whisper.state_dict()
    with pytest.raises(ValueError, match=r"transformers needs a tokenizer\.json"):
        save_hugging_face(tmp_path, toy_whisper.config, weights, [Path("vocabulary.txt")])
    del weights["decoder.ln.bias"]
    with pytest.raises(ValueError, match=r"1 weights are missing, such as decoder\.ln\.bias"):
        save_hugging_face(tmp_path, toy_whisper.config, weights, [])
