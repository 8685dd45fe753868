"""A model whose vocabulary goes on after the timestamps writes what its new tokens stand for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from loquent.asr import Recognizer
from loquent.asr.whisper.checkpoint import load_whisper, save_whisper
from loquent.asr.whisper.conversion import weight_shapes
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.hub import resolve
from loquent.speech.runtime.events import Word

NAME = "decoder.token_embedding.weight"


QUICK = {"beam_size": 1, "temperatures": (0.0,)}


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, sample_text: str) -> tuple[Path, dict[str, int]]:
    """tiny.en with new tokens for three words of the sample in place of the old ones, and a control token."""
    folder = tmp_path_factory.mktemp("extended")
    source = resolve("tiny.en").path
    checkpoint, tokenizer = load_whisper(source), WhisperTokenizer.load(source)
    words = [f" {word}" for word in sample_text.split() if word.isalpha() and len(tokenizer.encode(f" {word}")) == 1]
    old = [tokenizer.encode(word)[0] for word in dict.fromkeys(words[2:])][:3]
    embedding = checkpoint.weights[NAME].float()
    rows = [embedding[id_].clone() for id_ in old]
    embedding[old] = 0
    weights = checkpoint.weights | {NAME: torch.cat([embedding, torch.stack(rows), torch.zeros(1, len(rows[0]))])}
    config = dataclasses.replace(checkpoint.config, n_vocab=len(weights[NAME]))
    assert weight_shapes(config)[NAME] == weights[NAME].shape
    save_whisper(folder, config, weights)
    description = json.loads((source / "tokenizer.json").read_text())
    names = [tokenizer.decode([id_]) for id_ in old]
    added = {name: tokenizer.n_vocab + at for at, name in enumerate([*names, "<|mine|>"])}
    description["added_tokens"] += [{"id": id_, "content": name, "special": False} for name, id_ in added.items()]
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return folder, {name: added[name] for name in names}


@pytest.fixture(scope="module")
def recognizer(extended: tuple[Path, dict[str, int]]) -> WhisperRecognizer:
    loaded = Recognizer.from_pretrained(extended[0])
    assert isinstance(loaded, WhisperRecognizer)
    return loaded


def test_whole_recordings(
    extended: tuple[Path, dict[str, int]],
    recognizer: WhisperRecognizer,
    tiny_en: Whisper,
    tokenizer: WhisperTokenizer,
    first_sentence: np.ndarray,
) -> None:
    _, added = extended
    plain = WhisperRecognizer(tiny_en, tokenizer).transcribe(first_sentence, word_timestamps=True, **QUICK)
    transcript = recognizer.transcribe(first_sentence, word_timestamps=True, **QUICK)
    assert transcript.text == plain.text
    assert [len(segment.words) for segment in transcript.segments] == [len(one.words) for one in plain.segments]
    assert all(name in transcript.text for name in added)
    untimed = recognizer.transcribe(first_sentence, without_timestamps=True, **QUICK)
    assert untimed.text.split()[:3] == plain.text.split()[:3]


def test_streams(
    extended: tuple[Path, dict[str, int]], recognizer: WhisperRecognizer, first_sentence: np.ndarray
) -> None:
    _, added = extended
    session = recognizer.session(policy="local-agreement", chunk_ms=2000)
    events = [*session.push(first_sentence), *session.finish()]
    text = "".join(event.text for event in events if isinstance(event, Word))
    assert all(name in text for name in added)


def test_the_tokenizer_of_another_model_is_refused(extended: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    folder, _ = extended
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    (tmp_path / "tokenizer.json").write_bytes((resolve("tiny.en").path / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match="the model has 51868 tokens and the tokenizer 51864, so they belong to diff"):
        Recognizer.from_pretrained(tmp_path)
