"""Our processor does what simulstream asks of one."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from loquent.translate.spoken.interpreter import Interpreter
from loquent.translate.task import TranslationTask

pytest.importorskip("simulstream")


def test_chunks_of_a_recording(toy: ModuleType, band_energy: ModuleType) -> None:
    from loquent.translate.agents.simulstream import LoquentProcessor

    class Processor(LoquentProcessor):
        interpreter = Interpreter(
            {"recognize": band_energy.BandEnergy(), "translate": TranslationTask(toy.Mirror())},
            source="en",
            target="es",
        )

    samples = np.random.default_rng(1).normal(0, 0.1, 16_000 * 3).astype(np.float32)
    stream = Processor.interpreter.session(sample_rate=16_000, policy="local-agreement")
    whole = "".join(e.text for e in stream.push(samples) + stream.finish() if e.type == "translation")

    processor = Processor(SimpleNamespace(speech_chunk_size=0.5, options={"policy": "local-agreement"}))
    processor.set_source_language("en")
    processor.set_target_language("Spanish")
    with pytest.raises(ValueError, match="'es', got 'German'"):
        processor.set_target_language("German")
    for _ in range(2):
        said = [processor.process_chunk(samples[at : at + 8000]) for at in range(0, len(samples), 8000)]
        said.append(processor.end_of_stream())
        assert "".join(one.new_string for one in said) == " " + " ".join(whole.split())
        assert all(one.deleted_string == "" for one in said)
        assert all(processor.tokens_to_string(one.new_tokens) == one.new_string for one in said)
    processor.process_chunk(samples)
    processor.clear()
    assert processor.end_of_stream().new_string == ""
