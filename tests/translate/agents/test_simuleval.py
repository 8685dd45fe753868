"""Our agents under the unmodified `simuleval` command: its figures are ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from loquent.translate.score import read_simuleval, score, word_by_word
from loquent.translate.seq2seq.checkpoint import save_model
from loquent.translate.translator import Translator

pytest.importorskip("simuleval")
AGENT = "loquent.translate.agents.text.TextAgent"


def test_text_agent(toy: ModuleType, tmp_path: Path) -> None:
    toy_model, folder = toy.toy_network(), tmp_path / "en-es"
    save_model(folder, toy_model.network, toy_model.codec, "en", "es")
    sources = [toy.made_up(5, 1), f"{toy.made_up(2, 2)}. {toy.made_up(3, 3)}", "bi"]
    references = [toy.made_up(4, 4), toy.made_up(6, 5), "ko"]
    (tmp_path / "source.txt").write_text("\n".join(sources) + "\n")
    (tmp_path / "reference.txt").write_text("\n".join(references) + "\n")
    flags = ["--source", "source.txt", "--target", "reference.txt", "--output", "out"]
    flags += ["--quality-metrics", "BLEU", "--latency-metrics", "AL", "LAAL", "AP", "DAL"]
    flags += ["--loquent-model", str(folder), "--loquent-options", "policy=wait-k", "k=2"]
    program = [sys.executable, "-m", "simuleval.cli", "--agent-class", AGENT]
    subprocess.run([*program, *flags], cwd=tmp_path, env=os.environ, check=True, capture_output=True, timeout=240)

    instances = []
    translator = Translator.from_pretrained(folder)
    for source, reference in zip(sources, references, strict=True):
        instances.append(word_by_word(translator.session(policy="wait-k", k=2), source, reference))
    theirs = read_simuleval(tmp_path / "out" / "instances.log")
    for one, other in zip(instances, theirs, strict=True):
        # SimulEval knows no mark that follows its word later: it puts a space before it.
        assert one.prediction.replace(" ", "") == other.prediction.replace(" ", "")
    figures = score(theirs)
    header, values = (tmp_path / "out" / "scores.tsv").read_text().splitlines()
    printed = dict(zip(header.split(), map(float, values.split()), strict=True))
    assert printed == pytest.approx({name: figures[name] for name in printed}, abs=6e-4)
