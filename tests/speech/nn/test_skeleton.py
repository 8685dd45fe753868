"""Modules without weights."""

import subprocess
import sys

import torch
from torch import nn

from loquent.speech.nn.skeleton import Skeletons


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.position = nn.Parameter(torch.empty(2, 3))
        self.register_buffer("table", torch.arange(3.0).exp(), persistent=False)


def test_weights_have_shapes_alone_and_tables_are_computed():
    before = torch.random.get_rng_state()
    with Skeletons():
        layers = Layers()
        chosen = torch.empty(2, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before), "no number was drawn"
    assert all(weight.is_meta for weight in layers.parameters())
    assert torch.equal(layers.table, torch.tensor([0.0, 1.0, 2.0]).exp())
    assert not chosen.is_meta, "a device that is named is taken"
    assert not torch.empty(2).is_meta
    assert {name: weight.shape for name, weight in layers.state_dict().items()} == {
        name: weight.shape for name, weight in Layers().state_dict().items()
    }


def test_weights_are_put_in_their_place():
    whole = Layers()
    with Skeletons():
        layers = Layers()
    layers.load_state_dict(whole.state_dict(), assign=True)
    assert not any(weight.is_meta for weight in layers.state_dict().values())
    tokens = torch.tensor([1, 4])
    assert torch.equal(
        layers.norm(layers.linear(layers.embedding(tokens))), whole.norm(whole.linear(whole.embedding(tokens)))
    )


def test_no_model_that_is_loaded_has_torch_load_its_compiler():
    script = (
        "import sys\n"
        "from loquent.asr import Recognizer\n"
        "from loquent.translate import Translator\n"
        "from loquent.tts import Synthesizer\n"
        "models = {'loquent/commands': Recognizer, 'loquent/voice': Synthesizer, 'loquent/en-es': Translator}\n"
        "for name, kind in models.items():\n"
        "    kind.from_pretrained(name, device='cpu')\n"
        "    assert not {'torch._dynamo', 'sympy'} & sys.modules.keys(), name"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
