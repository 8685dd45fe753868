"""What a recogniser is built from."""

import pytest
import torch

from loquent.asr.recognizer import Recognizer


@pytest.mark.parametrize(("engines", "int8"), [(["none", "fbgemm"], True), (["none", "qnnpack"], False)])
def test_auto_is_int8_only_where_that_is_fast(monkeypatch: pytest.MonkeyPatch, engines: list[str], int8: bool) -> None:
    if int8 and "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch has no fbgemm on this CPU")
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", engines)
    model = Recognizer.from_pretrained("tiny.en", device="cpu").model
    assert (model.decoder.int8_vocabulary is not None) == int8
