"""What the start of a recognition loads and holds: nothing twice, and nothing that it does not need."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import torch

import loquent.speech
from loquent.asr.recognizer import Recognizer
from loquent.asr.whisper.checkpoint import load_whisper
from loquent.asr.whisper.ctranslate2 import read_ctranslate2
from loquent.asr.whisper.model import EMBEDDING, Whisper
from loquent.asr.whisper.quantization import quantize_int8
from loquent.kernels.cpu.runtime import kernel
from loquent.kernels.int8_linear import has_byte_products
from loquent.speech.hub import resolve

SAMPLE = Path(loquent.speech.__file__).parent / "assets" / "sample.flac"


def test_a_file_is_transcribed_without_compilers_and_without_what_live_audio_needs():
    used = ("self_attention", "cross_attention", "linear", "int8_linear", "top_tokens")
    for name in used:  # compiled and kept, if they were not
        if name != "int8_linear" or has_byte_products():
            kernel(name if "attention" not in name else "attention", name)
    script = (
        "import sys\nfrom loquent.speech.commands.cli import main\n"
        f"assert main(['transcribe', {str(SAMPLE)!r}, '--beam-size', '1']) == 0\n"
        "compilers = {'numba', 'torch._dynamo', 'sympy', 'triton', 'scipy'}\n"
        "others = {'transformers', 'peft', 'huggingface_hub', 'sentencepiece', 'av', 'torchaudio', 'sounddevice'}\n"
        "live = {'loquent.asr.whisper.live.task', 'loquent.speech.runtime.engine'}\n"
        "needless = (compilers | others | live) & sys.modules.keys()\n"
        "assert not needless, needless"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "Lovelace dreamed of such machines" in shown


def test_no_weight_is_held_twice():
    model = Recognizer.from_pretrained("tiny.en", device="cpu", compute_type="int8").model
    weights = model.state_dict()
    assert {name for name, weight in weights.items() if weight.dtype != torch.float32} == {EMBEDDING}
    assert weights[EMBEDDING].dtype == torch.float16, "the file's own type: it only looks tokens up"
    held = {weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes() for weight in weights.values()}
    assert sum(held.values()) == sum(weight.nbytes for weight in weights.values()), "no memory beyond the weights"
    assert model.decoder.int8_vocabulary is not None
    if model.decoder.int8_vocabulary.packed is not None:
        assert model.decoder.int8_vocabulary.values is None


def test_a_model_in_float32_is_float32_throughout():
    model = Recognizer.from_pretrained("tiny.en", device="cpu", compute_type="float32").model
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}


def test_tokens_are_looked_up_exactly_beside_an_int8_vocabulary():
    checkpoints = [load_whisper(resolve("tiny.en").path) for _ in range(2)]
    whole, short = (
        quantize_int8(Whisper.from_weights(one.config, one.weights, float_vocabulary=float_vocabulary))
        for one, float_vocabulary in zip(checkpoints, (True, False), strict=True)
    )
    tokens, audio = torch.tensor([[50257, 50362, 464]]), torch.randn(1, 20, whole.config.n_audio_state)
    assert torch.equal(whole.decoder(tokens, audio), short.decoder(tokens, audio))


def test_weights_are_read_into_their_place():
    file = resolve("tiny.en").path / "model.bin"
    tracemalloc.start()
    variables = read_ctranslate2(file).variables
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(variables) > 100
    assert peak < 1.02 * file.stat().st_size


def test_weights_are_taken_out_of_the_checkpoint_as_the_model_is_built():
    checkpoint = load_whisper(resolve("tiny.en").path)
    expected = {name: weight.clone() for name, weight in checkpoint.weights.items()}
    model = Whisper.from_weights(checkpoint.config, checkpoint.weights)
    assert not checkpoint.weights
    assert all(torch.equal(weight, expected[name].float()) for name, weight in model.state_dict().items())
