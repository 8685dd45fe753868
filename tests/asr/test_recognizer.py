"""What a recogniser is built from."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from loquent.asr.conformer.nemo_checkpoint import NemoCheckpoint, load_nemo
from loquent.asr.conformer.recognizer import ConformerRecognizer
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.recognizer import Recognizer
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.speech.runtime.options import OptionError

HYBRID, CTC = (Path(__file__).parent / "conformer" / "data" / f"nemo_{name}.nemo" for name in ("hybrid", "ctc"))


@pytest.mark.parametrize(("engines", "int8"), [(["none", "fbgemm"], True), (["none", "qnnpack"], False)])
def test_auto_is_int8_only_where_that_is_fast(monkeypatch: pytest.MonkeyPatch, engines: list[str], int8: bool) -> None:
    if int8 and "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch has no fbgemm on this CPU")
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", engines)
    model = Recognizer.from_pretrained("tiny.en", device="cpu").model
    assert (model.decoder.int8_vocabulary is not None) == int8


def test_a_converted_folder_is_read_rather_than_the_archive_in_it(tmp_path: Path) -> None:
    shutil.copy(HYBRID, tmp_path)
    assert Recognizer.from_pretrained(tmp_path).model.config.ctc
    german = load_nemo(CTC, language="German")
    german.build().save_pretrained(tmp_path, german.tokenizer)
    assert Recognizer.from_pretrained(tmp_path).model.config.language == "de"
    with pytest.raises(ValueError, match="Klingon"):
        load_nemo(CTC, language="Klingon")


def test_a_folder_of_several_archives_is_refused(tmp_path: Path) -> None:
    for archive in (HYBRID, CTC):
        shutil.copy(archive, tmp_path)
    with pytest.raises(ValueError, match=r"nemo_ctc\.nemo, nemo_hybrid\.nemo; pass the path of one"):
        Recognizer.from_pretrained(tmp_path)
    assert Recognizer.from_pretrained(tmp_path / CTC.name).model.config.transducer is None


def test_warnings_of_an_archive_are_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    read = load_nemo(CTC)
    inexact = NemoCheckpoint(read.config, read.weights, read.tokenizer, ("which is inexact",))
    monkeypatch.setattr("loquent.asr.conformer.nemo_checkpoint.load_nemo", lambda file: inexact)
    with caplog.at_level(logging.WARNING):
        Recognizer.from_pretrained(CTC)
    assert caplog.messages == [f"{CTC}: which is inexact"]


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    read = load_nemo(CTC)
    read.build().save_pretrained(tmp_path, SubwordTokenizer.train(["some other words entirely"], 20, "char"))
    with pytest.raises(ValueError, match=r"tokenizer in .* has \d+ tokens, the model 32"):
        Recognizer.from_pretrained(tmp_path)


def test_options_of_the_other_kind_of_model_are_named(tiny_en, tokenizer, toy_conformer, sample) -> None:
    whisper, conformer = WhisperRecognizer(tiny_en, tokenizer), ConformerRecognizer(*toy_conformer)
    with pytest.raises(ValueError, match="head: unknown; expected one of task, language"):
        whisper.transcribe(sample, head="ctc", chunk_ms=160)
    with pytest.raises(ValueError, match="head: unknown; expected one of language, policy, chunk_ms"):
        whisper.streaming_task(head="ctc")
    with pytest.raises(ValueError, match="initial_prompt: unknown; expected one of language"):
        conformer.transcribe(sample, initial_prompt="x")
    with pytest.raises(ValueError, match="policy: unknown"):
        conformer.session(policy="alignatt")


def test_wrong_values_are_refused_by_name_everywhere(tiny_en, tokenizer, toy_conformer, sample) -> None:
    whisper, conformer = WhisperRecognizer(tiny_en, tokenizer), ConformerRecognizer(*toy_conformer)
    for recognizer in (whisper, conformer):
        for take in (recognizer.session, recognizer.streaming_task, lambda **o: recognizer.transcribe(sample, **o)):  # noqa: B023
            with pytest.raises(OptionError, match=r"^language: expected text, got 5"):
                take(language=5)
            with pytest.raises(OptionError, match=r"^language: 'xx' is not"):
                take(language="xx")
        with pytest.raises(OptionError, match=r"^task: expected one of transcribe, translate, got 'sing'"):
            recognizer.session(task="sing")
    session = whisper.session()
    with pytest.raises(ValueError, match=r"^task: fixed at the start"):
        session.configure(task="translate")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"device": "abacus"}, "device: expected auto, cpu"),
        ({"device": "cuda:99"}, "device: 'cuda:99' is not there"),
        ({"compute_type": "float7"}, "compute_type: expected one of auto, float32, int8"),
        ({"threads": -1}, "threads: expected 1 or more, or 0"),
    ],
)
def test_a_device_that_is_not_there_is_told_before_the_model_is_sought(arguments, complaint) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}"):
        Recognizer.from_pretrained("no such model", **arguments)


def test_no_threads_are_all_cores() -> None:
    before = torch.get_num_threads()
    Recognizer.from_pretrained(HYBRID, threads=0)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "module",
    [
        "loquent.asr",
        "loquent.asr.whisper.live.options",
        "loquent.asr.whisper.offline.options",
        "loquent.asr.conformer.options",
    ],
)
def test_options_are_read_without_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_public_name_of_the_mode_is_task() -> None:
    recognizer = Recognizer.from_pretrained(HYBRID)
    for options in ({"task": "translate"}, {"mode": "translate"}):
        with pytest.raises(ValueError, match="only 'transcribe'"):
            recognizer.session(**options)
        with pytest.raises(ValueError, match="only 'transcribe'"):
            recognizer.transcribe(np.zeros(1600, np.float32), **options)
    with pytest.raises(ValueError, match="twice"):
        recognizer.transcribe(np.zeros(1600, np.float32), task="transcribe", mode="transcribe")
