"""Files of voices: found, read, and refused with a reason."""

import shutil

import pytest
import torch

from loquent.speech.hub import resolve
from loquent.tts.hibari.config import HibariConfig
from loquent.tts.hibari.voice import HibariVoice
from loquent.tts.hibari.weights import find_voice, read_hibari
from loquent.tts.voices import family_of


@pytest.fixture
def altered(hibari_file, tmp_path):
    """Writes the voice anew, after a change of its graph."""
    onnx = pytest.importorskip("onnx")

    def write(change, name="altered.onnx"):
        model = onnx.load(hibari_file)
        change(model.graph, onnx.numpy_helper)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


def initializer(graph, name):
    return next(one for one in graph.initializer if one.name == name)


def test_the_sizes_are_read_from_the_file(hibari_file):
    config, weights = read_hibari(hibari_file)
    assert config == HibariConfig()
    voice = HibariVoice(config)
    assert sum(weight.numel() for weight in voice.parameters()) == sum(weight.numel() for weight in weights.values())
    assert 6_100_000 < sum(weight.numel() for weight in weights.values()) < 6_200_000
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_another_voice_in_a_folder_loads(hibari_file, tmp_path):
    shutil.copyfile(hibari_file, tmp_path / "bf_emma.int8.onnx")
    checkpoint = resolve(tmp_path)
    assert family_of(checkpoint.path).load() is HibariVoice
    voice = HibariVoice.load(checkpoint.path)
    assert voice.speakers == ("bf_emma.int8",)
    assert voice.fingerprint == HibariVoice.load(hibari_file).fingerprint
    assert resolve(tmp_path / "bf_emma.int8.onnx").path == find_voice(tmp_path)


def test_other_weights_are_another_fingerprint(altered, hibari_voice):
    def change(graph, numpy_helper):
        bias = initializer(graph, "m.head.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1e-3, bias.name))

    assert HibariVoice.load(altered(change)).fingerprint != hibari_voice.fingerprint


def test_one_file_is_the_voice(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no voice of hibari-tts"):
        find_voice(tmp_path)
    (tmp_path / "oov.onnx").touch()  # of a front end
    (tmp_path / "one.onnx").touch()
    assert find_voice(tmp_path).name == "one.onnx"
    (tmp_path / "two.onnx").touch()
    with pytest.raises(ValueError, match=r"has 2 voices, one\.onnx, two\.onnx; name one of them"):
        find_voice(tmp_path)


def test_what_is_no_voice_is_refused(hibari_file, tmp_path):
    for name, content in (("text", b"no graph at all"), ("half", hibari_file.read_bytes()[:4_000_000])):
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.onnx is damaged or no ONNX file"):
            HibariVoice.load(file)
    other = hibari_file.parent / "oov.onnx"
    with pytest.raises(ValueError, match=r"oov\.onnx is no voice of hibari-tts: it has no weight"):
        HibariVoice.load(other)


def test_weights_that_do_not_fit_are_refused(altered):
    def without_a_bias(graph, numpy_helper):
        graph.initializer.remove(initializer(graph, "pn.pro.3.dw.bias"))

    def of_another_shape(graph, numpy_helper):
        norm = initializer(graph, "m.dec_norm.weight")
        norm.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(norm)[:100], norm.name))

    def of_fewer_parts(graph, numpy_helper):
        head = initializer(graph, "m.head.bias")
        head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head)[:3000], head.name))

    def not_finite(graph, numpy_helper):
        norm = initializer(graph, "m.dec_norm.weight")
        norm.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(norm) * float("nan"), norm.name))

    with pytest.raises(ValueError, match=r"no voice of hibari-tts: .*curves\.3\.depthwise\.bias"):
        HibariVoice.load(altered(without_a_bias))
    with pytest.raises(ValueError, match=r"no voice of hibari-tts: .*stages\.3\.weight"):
        HibariVoice.load(altered(of_another_shape))
    with pytest.raises(ValueError, match="no voice of hibari-tts: expected 601 bins and 130 inputs, got 600 and 130"):
        HibariVoice.load(altered(of_fewer_parts))
    with pytest.raises(ValueError, match=r"weight 'm\.dec_norm\.weight' has values that are not finite"):
        HibariVoice.load(altered(not_finite))
