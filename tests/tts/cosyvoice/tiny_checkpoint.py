"""Writes tiny CosyVoice checkpoints with random weights, file by file as upstream publishes them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.tts.lm.layout import SpeechLayout
from loquent.tts.lm.model import SpeechLanguageModel
from loquent.tts.tokens.encoder import TokenEncoderConfig
from loquent.tts.tokens.tokenizer import S3Tokenizer
from loquent.tts.vocoder.hift import Hift, HiftConfig

TEXT = "the quick brown fox jumps over the lazy dog while seven wizards vex my bright quiz club, and say so!"
QWENS_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CODES, VOCABULARY, SPEAKER, CHUNK = 6561, 800, 12, 5
LANGUAGE_MODEL: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
SETTINGS = """
__set_seed1: !apply:os.mkdir [{trap}]
__set_seed2: !apply:torch.manual_seed [1986]
sample_rate: 24000
llm_input_size: 24
token_mel_ratio: 2
chunk_size: {chunk}
qwen_pretrain_path: ''
llm: !new:cosyvoice.llm.llm.{model}
    llm_input_size: !ref <llm_input_size>
    speech_token_size: 6561
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: 0.8
        top_k: 25
        win_size: 10
        tau_r: 0.1
flow: !new:cosyvoice.flow.flow.Flow
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                inference_cfg_rate: 0.7
        estimator: !new:cosyvoice.flow.decoder.Estimator
            {head}: 16
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: 80
    base_channels: 16
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 5, 3]
    upsample_kernel_sizes: [16, 11, 7]
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    conv_pre_look_right: 4
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.F0Predictor
        cond_channels: 12
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1920
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: 480
    win_size: 1920
    fmin: 0
    fmax: {fmax}
    center: False
data_pipeline: [!ref <llm>, !ref <feat_extractor>]
"""


def write(folder: Path, version: int) -> Path:
    """Write all files of a checkpoint; a trap beside them would show that its settings were executed."""
    torch.manual_seed(version)
    (folder / "CosyVoice-BlankEN").mkdir(parents=True)
    settings = SETTINGS.format(
        trap=folder / "trap",
        chunk=CHUNK,
        model="Qwen2LM" if version == 2 else "CosyVoice3LM",
        head="attention_head_dim" if version == 2 else "dim_head",
        fmax="8000" if version == 2 else "null",
    )
    (folder / f"cosyvoice{version}.yaml").write_text(settings, encoding="utf-8")
    (folder / "CosyVoice-BlankEN" / "config.json").write_text(json.dumps(LANGUAGE_MODEL), encoding="utf-8")
    text_tokenizer().save(str(folder / "CosyVoice-BlankEN" / "tokenizer.json"))
    torch.save(language_model(version) | {"epoch": 3, "step": 12}, folder / "llm.pt")
    torch.save(flow(version), folder / "flow.pt")
    torch.save(vocoder(version), folder / "hift.pt")
    speaker, mel = torch.randn(1, SPEAKER), torch.randn(1, 14, 80)
    spoken = {
        "prompt_text": torch.tensor([[260, 261, 262, 263]] if version == 2 else [[260, end_of_prompt(), 261]]),
        "llm_prompt_speech_token": torch.tensor([[5, 4, 3, 2, 9, 8, 7]], dtype=torch.int32),
        "flow_prompt_speech_token": torch.tensor([[5, 4, 3, 2, 9, 8, 7]], dtype=torch.int32),
        "prompt_speech_feat": mel,
        "flow_embedding": speaker,
    }
    torch.save({"Anna": {"embedding": torch.randn(1, SPEAKER)}, "Ben": spoken}, folder / "spk2info.pt")
    return folder


def end_of_prompt() -> int:
    """The token's number: third of the marks, the first of which is in the tokenizer."""
    return text_tokenizer().get_vocab_size() + 2


def text_tokenizer() -> Tokenizer:
    """Built as Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWENS_PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return tokenizer


def language_model(version: int) -> dict[str, Any]:
    layouts = {2: SpeechLayout.cosyvoice2, 3: SpeechLayout.cosyvoice3}
    model = SpeechLanguageModel(DecoderConfig.from_hugging_face(LANGUAGE_MODEL), layouts[version](VOCABULARY, CODES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {
        name.replace("decoder.", "llm.model.model.") if name.startswith("decoder.") else name: weight.to(torch.bfloat16)
        for name, weight in model.state_dict().items()
    }
    return weights | {"llm.model.lm_head.weight": weights["llm.model.model.embed_tokens.weight"]}


def flow(version: int) -> dict[str, Tensor]:
    """Of the parity tests of the flow, for more codes."""
    made = program("flow/make_cosyvoice_goldens.py")
    with safe_open(made.GOLDENS, "pt") as file:
        shapes = json.loads(file.metadata()["unet" if version == 2 else "dit"])
    shapes["input_embedding.weight"][0] = CODES
    return made.draw(shapes)


def vocoder(version: int) -> dict[str, Tensor]:
    """With weight norm, in the old spelling and in the new one."""
    model = Hift(HiftConfig(base_channels=16, f0_channels=12, causal=version == 3))
    torch.nn.init.normal_(model.f0_predictor.classifier.weight, std=60)
    lengths, directions = (".parametrizations.weight.original0", ".parametrizations.weight.original1")
    if version == 3:
        lengths, directions = (".weight_g", ".weight_v")
    weights = {}
    for name, weight in model.state_dict().items():
        layer = name.removesuffix(".weight")
        plain = layer.startswith(("source_downs", "m_source", "f0_predictor.classifier")) or name == layer
        if plain:
            weights[name] = weight.float()
        else:
            weights[layer + lengths] = weight.float().flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
            weights[layer + directions] = 0.5 * weight.float()
    return {f"generator.{name}": weight for name, weight in weights.items()} if version == 3 else weights


def write_readers(folder: Path, version: int) -> None:
    """Write the ONNX files that read recordings: a speech tokenizer, and the mean of features for a speaker encoder."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: Tensor) -> Any:
        return numpy_helper.from_array(value.detach().numpy().copy(), name)

    torch.manual_seed(0)
    config = TokenEncoderConfig(dim=64, layers=1)
    weights = S3Tokenizer(config).state_dict()
    nodes, constants = [], []
    for name in weights:
        module, _, kind = name.removeprefix("encoder.").rpartition(".")
        path = "/" + module.replace("blocks.0.", "blocks.0/").replace("attn.", "attn/").replace("mlp.", "mlp/mlp.")
        path = path.replace("quantizer.project_down", "project_in")
        conv, norm = "conv" in path or "fsmn" in path, "_ln" in path
        if kind == "bias" and (conv or norm):
            continue
        operation = "Conv" if conv else "LayerNormalization" if norm else "MatMul" if kind == "weight" else "Add"
        inputs = [name] + ([f"{name[:-6]}bias"] if (conv or norm) and f"{name[:-6]}bias" in weights else [])
        nodes.append(helper.make_node(operation, ["x", *inputs], ["x"], f"{path}/{operation}"))
        for one in inputs:
            value = weights[one]
            constants.append(constant(one, value.T if operation == "MatMul" else value))
    graph = helper.make_graph(nodes, "tokenizer", [], [], constants)  # to be read, not to be run
    onnx.save(helper.make_model(graph), str(folder / f"speech_tokenizer_v{version}.onnx"))

    nodes = [
        helper.make_node("ReduceMean", ["features", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["squared", "weight"], ["embedding"]),
        helper.make_node("ReduceMean", ["power", "axes"], ["squared"], keepdims=0),
        helper.make_node("Mul", ["features", "features"], ["power"]),
    ]
    nodes = [nodes[3], nodes[2], nodes[1]]
    graph = helper.make_graph(
        nodes,
        "speaker",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, None, 80])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, SPEAKER])],
        [constant("weight", torch.randn(80, SPEAKER)), constant("axes", torch.tensor([1]))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(folder / "campplus.onnx"))


def program(file: str) -> ModuleType:
    """A program of the tests that made goldens."""
    path = Path(__file__).parents[1] / file
    spec = importlib.util.spec_from_file_location(f"cosyvoice_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
