"""Hibari here against hibari-tts: its graph in onnxruntime and its signal processing in numpy."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from loquent.kernels.counter_noise import counter_noise
from loquent.tts.acoustics import PhoneWindow
from loquent.tts.hibari.config import ALPHABET, HOP, N_FFT
from loquent.tts.vocoder.harmonic_noise import harmonic_noise_spectrum
from loquent.tts.vocoder.inverse_stft import InverseSTFT
from loquent.tts.vocoder.pulses import PulseTrain
from loquent.tts.vocoder.stft import STFT

# Sentences in the phonemes that hibari-tts reads.
SENTENCES = (
    "ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˌOvəɹ ðə lˈAzi dˈɔɡ.",
    "ʃi sˈɛlz sˈi ʃˈɛlz bI ðə sˈi ʃˈɔɹ, dˈʌzᵊnt ʃi?",
    "ə mˈæn ɪn ən ˈɔɹɪnʤ hˈæt ɪz stˈɛɹɪŋ æt sˈʌmθɪŋ.",
    "wˌɛn ðə ɹˈAn stˈɑpt, ðə ʧˈɪldɹən ɹˈæn ˌWt ˌɪntə ðə ɡˈɑɹdᵊn.",
    "nˈObˌɑdi nˈOz wI ðə mjˈuzɪk sˈʌdᵊnli stˈɑpt.",
)
HIDDEN = ("/Concat_43_output_0", "/Gather_37_output_0", "/Clip_output_0")  # decoder input, energy, durations


class Outputs(NamedTuple):
    """What the graph makes of a sentence: five spectral parts (601, F) and pitch, then the hidden tensors."""

    parts: list[np.ndarray]
    pitch: np.ndarray
    decoder_input: np.ndarray
    energy: np.ndarray
    units: np.ndarray


class Graph:
    """The graph with outputs for its hidden tensors; in float32, if wanted, with its 8-bit weights multiplied out."""

    def __init__(self, file: Path, exact: bool) -> None:
        onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
        model = onnx.load(file)
        if exact:
            _without_quantisation(onnx, model.graph)
        for name in HIDDEN:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # no word about initialisers that are not used any more
        self.session = runtime.InferenceSession(model.SerializeToString(), options)

    def __call__(self, phones: list[int], speed: float = 1.0) -> Outputs:
        ids = np.array([[0, *phones, 0]], np.int64)
        *parts, pitch, inputs, energy, units = self.session.run(
            None, {"ids": ids, "speed": np.array([speed], np.float32)}
        )
        return Outputs([part[0] for part in parts], pitch[0], inputs[0], energy.reshape(-1), units.reshape(-1))


def _without_quantisation(onnx, graph) -> None:
    """Replace DynamicQuantizeLinear, MatMulInteger, Cast and Mul by one MatMul in float32."""
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        cast = next((makers[name] for name in node.input if name in makers and makers[name].op_type == "Cast"), None)
        product = makers.get(cast.input[0]) if cast is not None else None
        if node.op_type != "Mul" or product is None or product.op_type != "MatMulInteger":
            continue
        name = product.input[1]
        scale = values[name.removesuffix("_quantized") + "_scale"]
        if f"{name}_float" not in values:
            values[f"{name}_float"] = values[name].astype(np.float32) * scale
            graph.initializer.append(onnx.numpy_helper.from_array(values[f"{name}_float"], f"{name}_float"))
        source = makers[product.input[0]].input[0]
        node.CopyFrom(onnx.helper.make_node("MatMul", [source, f"{name}_float"], list(node.output), node.name))
    unused = {"DynamicQuantizeLinear", "MatMulInteger"}
    kept = [node for node in graph.node if node.op_type not in unused and not _is_left_over(node, makers)]
    del graph.node[:]
    graph.node.extend(kept)


def _is_left_over(node, makers) -> bool:
    sources = [makers[name].op_type for name in node.input if name in makers]
    return "MatMulInteger" in sources or (node.op_type == "Mul" and "DynamicQuantizeLinear" in sources)


@pytest.fixture(scope="module")
def exact(hibari_file):
    return Graph(hibari_file, exact=True)


@pytest.fixture(scope="module")
def quantised(hibari_file):
    return Graph(hibari_file, exact=False)


def phones_of(sentence):
    return [ALPHABET[phone] for phone in sentence]


def decibels(signal, other):
    return 10 * np.log10(np.square(signal).sum() / np.square(signal - other).sum())


def sound_of(out, noise):
    """What hibari-tts makes of a graph's outputs, with our noise (F, 1202)."""
    dsp = pytest.importorskip("hibari.dsp")
    bins = N_FFT // 2 + 1

    class Noise:
        def standard_normal(self, shape, dtype):
            pairs = np.stack([noise[:, :bins].T, noise[:, bins:].T], axis=-1)
            return pairs.reshape(shape).astype(dtype)

    return dsp.synth(*out.parts, out.pitch, Noise())


def ours_of(voice, out):
    """What our renderer makes of the decoder's input in the graph, and the noise that it uses."""
    frames = np.concatenate([out.decoder_input[:-2].T, out.pitch[:, None], out.energy[:, None]], axis=1)
    with torch.inference_mode():
        samples = voice.renderer(torch.from_numpy(frames)[None])[0].numpy()
    return samples, counter_noise(torch.tensor([0]), torch.arange(len(frames))[None], N_FFT + 2)[0].numpy()


def test_the_alphabet_is_that_of_the_package(hibari_file):
    assert json.loads((hibari_file.parent / "vocab.json").read_text(encoding="utf-8")) == ALPHABET


def test_in_float32_the_networks_are_those_of_the_graph(hibari_voice, exact):
    for sentence in SENTENCES[:3]:
        phones = phones_of(sentence)
        out = exact(phones)
        (got,) = hibari_voice.acoustics([PhoneWindow(phones, 0, len(phones), True, True)])
        assert (got.durations // 2).tolist() == out.units.tolist()
        torch.testing.assert_close(got.curves[:, 0], torch.from_numpy(out.pitch), rtol=1e-3, atol=0.05)
        torch.testing.assert_close(got.curves[:, 1], torch.from_numpy(out.energy), rtol=1e-3, atol=1e-3)
        features = got.phones.repeat_interleave(got.durations, 0)
        torch.testing.assert_close(features, torch.from_numpy(out.decoder_input[:-2].T), rtol=1e-3, atol=1e-3)
        samples, noise = ours_of(hibari_voice, out)
        # Near 90 dB, unless a pitch falls on the other side of where a harmonic begins or a voice ends.
        assert decibels(sound_of(out, noise), samples) > 50


def test_in_8_bits_the_graph_is_as_near_as_its_rounding_allows(hibari_voice, quantised, exact):
    ratios, phones_alike, phones_in_all = [], 0, 0
    for sentence in SENTENCES:
        phones = phones_of(sentence)
        out = quantised(phones)
        (got,) = hibari_voice.acoustics([PhoneWindow(phones, 0, len(phones), True, True)])
        phones_alike += int(((got.durations // 2).numpy() == out.units).sum())
        phones_in_all += len(out.units)
        samples, noise = ours_of(hibari_voice, out)
        ratios.append(decibels(sound_of(out, noise), samples))
        if np.array_equal(got.durations // 2, out.units):
            voiced = out.pitch > 40
            assert np.corrcoef(got.curves[voiced, 0], out.pitch[voiced])[0, 1] > 0.999
            assert np.corrcoef(got.curves[:, 1], out.energy)[0, 1] > 0.9999
    assert phones_alike >= 0.98 * phones_in_all
    assert min(ratios) > 26
    assert np.mean(ratios) > 28


def test_speed_is_that_of_the_graph(hibari_voice, exact):
    phones = phones_of(SENTENCES[0])
    for speed in (0.8, 1.7):
        (got,) = hibari_voice.acoustics([PhoneWindow(phones, 0, len(phones), True, True, speed)])
        assert (got.durations // 2).tolist() == exact(phones, speed).units.tolist()


def test_the_signal_processing_is_that_of_the_package():
    # Samples that `hibari.dsp.synth` of hibari-tts 0.2.1 gave for these spectra.
    frames, bins = torch.arange(12.0)[:, None], torch.arange(601.0)
    parts = torch.cat(
        [
            -1 - bins / 200 + 0.3 * torch.sin(frames + bins / 50),
            0.5 * torch.sin(bins / 30 + frames),
            -5 - bins / 300 + 0 * frames,
            -6 + 0.5 * torch.cos(bins / 20 - frames),
            0.1 * bins + frames,
        ],
        dim=1,
    )
    noise = torch.cat([torch.cos(bins + frames), torch.sin(0.5 * bins + frames)], dim=1)
    pitch = torch.where(frames < 3, 0.0, 150 + 5 * frames).T
    stft = STFT(N_FFT, HOP, torch.hann_window(N_FFT) / (N_FFT / 4))
    source = stft(PulseTrain(24000, HOP)(pitch))
    got = InverseSTFT(N_FFT, HOP)(harmonic_noise_spectrum(parts[None], source, noise[None]))[0]
    expected = [-9e-6, -9e-6, -8.7e-5, -5.11e-4, 4.216e-3, -3.59e-4, 1.198e-3, -4.57e-4, 9.51e-4, -4.65e-4, -1.08e-4]
    torch.testing.assert_close(got[100::331], torch.tensor(expected), rtol=1e-3, atol=2e-6)
    assert float(got.square().mean()) == pytest.approx(4.8321e-6, rel=1e-3)
    assert float(got.abs().max()) == pytest.approx(0.015692, rel=1e-3)
