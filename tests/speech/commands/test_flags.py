"""The flags of the command line: those of Whisper and faster-whisper, and what the options of models allow."""

import contextlib
import dataclasses
import inspect
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest

from loquent.asr.conformer.options import Head
from loquent.asr.options import Mode
from loquent.asr.recognizer import ComputeType
from loquent.asr.whisper.live.options import COMMIT_RULES as RULES
from loquent.asr.whisper.live.options import CommitName, PolicyName
from loquent.asr.whisper.offline.options import TranscribeOptions
from loquent.speech.audio.endpoint import SpeechOptions
from loquent.speech.commands.arguments import COMMIT_RULES, COMPUTE_TYPES, HEADS, POLICIES, TASKS, UsageError
from loquent.speech.commands.cli import _parsed, main
from loquent.speech.commands.decoding import DECODING, FILTER
from loquent.speech.commands.transcribe import _options

SAMPLE = Path(str(resources.files("loquent.speech") / "assets" / "sample.flac"))
PAGE = Path(str(resources.files("loquent.speech"))).resolve().parent / "docs" / "reference" / "whisper-flags.md"
FLAG_ROWS = re.findall(r"^\| `([^`]+)` \| ([\w ]+) \|(.*)\|$", PAGE.read_text("utf-8"), re.MULTILINE)
WHISPER_FLAGS = """
    model model_dir device output_dir output_format verbose task language temperature best_of beam_size patience
    length_penalty suppress_tokens initial_prompt carry_initial_prompt condition_on_previous_text fp16
    temperature_increment_on_fallback compression_ratio_threshold logprob_threshold no_speech_threshold word_timestamps
    prepend_punctuations append_punctuations highlight_words max_line_width max_line_count max_words_per_line threads
    clip_timestamps hallucination_silence_threshold
"""


@pytest.mark.parametrize(
    "argv",
    [
        ["transcribe", str(SAMPLE), "--language", "xx"],
        ["transcribe", str(SAMPLE), "--temperature=-1"],
        ["transcribe", str(SAMPLE), "--stream", "--chunk-ms", "7"],
        ["transcribe", str(SAMPLE), "--model", "small", "--patience", "0"],
        ["serve", "--language", "xx"],
        ["serve", "--policy", "incremental", "--chunk-ms", "7"],
    ],
)
def test_wrong_values_are_refused_before_anything_heavy_is_imported(argv):
    script = (
        "import sys\nfrom loquent.speech.commands.cli import main\n"
        f"assert main({argv!r}) == 2\n"
        "heavy = {'torch', 'numpy', 'numba', 'soundfile', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_choices_are_those_of_the_options():
    assert get_args(PolicyName) == POLICIES
    assert get_args(CommitName) == COMMIT_RULES == tuple(RULES)
    assert get_args(Mode) == TASKS
    assert get_args(Head) == HEADS
    assert get_args(ComputeType) == COMPUTE_TYPES
    fields = {field.name: field.default for field in dataclasses.fields(TranscribeOptions)}
    renamed = {"max_new_tokens": "sample_len", "temperature": "temperatures", "batch_size": "speech"}
    renamed["temperature_increment_on_fallback"] = "temperatures"
    assert {renamed.get(name, name) for name in DECODING} <= fields.keys()
    for name, (_, text) in DECODING.items():  # the defaults that the help tells
        told = re.search(r"\(default: (-?[\d.]+|True|False)\)$", text)
        if told and name in fields and name != "suppress_tokens":
            assert float(eval(told[1])) == float(fields[name]), name
    assert {option for option, _, _ in FILTER.values()} < {f.name for f in dataclasses.fields(SpeechOptions)}


@pytest.mark.parametrize("row", FLAG_ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_the_table_of_whisper_s_flags(capsys, row):
    """What works is taken, under its own or another name; what is refused is refused for the reason told."""
    flag, verdict, told = row
    assert verdict in ("works", "other name", "refused")
    given = [flag] if flag.startswith("-") else re.findall(r"`(--[^`]+)`", told)
    for one in given:
        argv = ["transcribe", str(SAMPLE), *one.split()]
        if verdict != "refused":
            arguments = _parsed(argv)
            with contextlib.suppress(UsageError):  # of a word, which needs others beside it
                _options(arguments)
            continue
        with contextlib.suppress(SystemExit):
            assert main(argv) == 2
        assert told.strip() in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "option", "value"),
    [
        ("--beam_size", "beam_size", 1),
        ("--best_of", "best_of", 1),
        ("--patience", "patience", 1.0),
        ("--length_penalty", "length_penalty", 1.0),
        ("--temperature_increment_on_fallback", "temperatures", (0.0,)),
        ("--compression_ratio_threshold", "compression_ratio_threshold", None),
        ("--logprob_threshold", "logprob_threshold", None),
        ("--no_speech_threshold", "no_speech_threshold", None),
        ("--hallucination_silence_threshold", "hallucination_silence_threshold", None),
    ],
)
def test_none_means_what_it_means_in_whisper(flag, option, value):
    assert _options(_parsed(["transcribe", str(SAMPLE), flag, "None"]))[option] == value


@pytest.mark.parametrize("flag", ["--max_line_width", "--max_line_count", "--max_words_per_line"])
def test_no_limit_is_the_default_of_captions(flag):
    assert _parsed(["transcribe", str(SAMPLE), flag, "None"]) == _parsed(["transcribe", str(SAMPLE)])


def test_the_table_has_all_flags():
    flags = {flag.split()[0] for flag, _, _ in FLAG_ROWS}
    assert {"--" + name for name in WHISPER_FLAGS.split()} <= flags
    transcribe = pytest.importorskip("faster_whisper").WhisperModel.transcribe
    options = set(inspect.signature(transcribe).parameters) - {"self"}
    assert options <= {flag.removeprefix("--") for flag in flags}
