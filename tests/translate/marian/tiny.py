"""Tiny Marian models with random weights, in every kind of file."""

from __future__ import annotations

import io
import json
import random
import re
import struct
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import yaml

ENGLISH = "the a cat dog house tree sees finds eats sleeps runs big small green old near under with over river bread"
SPANISH = "el la un gato perro casa árbol ve encuentra come duerme corre grande verde viejo cerca bajo con río pan"
WORDS = {"en": ENGLISH.split(), "es": SPANISH.split()}


def sentences(language: str, count: int = 300) -> list[str]:
    """Random ones of a language's few words."""
    chance = random.Random(language)
    return [" ".join(chance.choices(WORDS[language], k=chance.randint(3, 9))) + "." for _ in range(count)]


def train_pieces(languages: list[str]) -> bytes:
    """A SentencePiece model as Marian trains them."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([one for language in languages for one in sentences(language)]),
        model_writer=model,
        vocab_size=120,
        hard_vocab_limit=False,  # so few words have fewer pieces
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        minloglevel=2,
    )
    return model.getvalue()


def write_vocabulary(folder: Path, tags: tuple[str, ...] = ()) -> dict[str, int]:
    """``source.spm``, ``target.spm`` and ``vocab.json``, which numbers the pieces of both in another order."""
    names = {"</s>": 0, "<unk>": 1}
    found = set()
    for side, language in (("source", "en"), ("target", "es")):
        content = train_pieces([language])
        (folder / f"{side}.spm").write_bytes(content)
        model = sentencepiece.SentencePieceProcessor(model_proto=content)
        found |= {model.id_to_piece(piece) for piece in range(len(model))}
    ordered = sorted(found - set(names))
    random.Random(1).shuffle(ordered)
    for name in [*(f">>{tag}<<" for tag in tags), *ordered, "<pad>"]:
        names[name] = len(names)
    (folder / "vocab.json").write_text(json.dumps(names))
    return names


def save_hugging_face(folder: Path, tags: tuple[str, ...] = (), **options):
    """A MarianMT folder, as `transformers` writes it; returns its model."""
    from transformers import MarianConfig, MarianMTModel

    folder.mkdir(parents=True, exist_ok=True)
    names = write_vocabulary(folder, tags)
    config = MarianConfig(
        vocab_size=len(names),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=40,
        activation_function="swish",
        scale_embedding=True,
        max_position_embeddings=200,
        pad_token_id=names["<pad>"],
        decoder_start_token_id=names["<pad>"],
        eos_token_id=0,
        forced_eos_token_id=None,
        init_std=0.15,
        **options,
    )
    torch.manual_seed(6)
    model = MarianMTModel(config).eval()
    with torch.no_grad():
        # Embeddings of one length, and signs above the last layer: else a draft repeats the piece before, whose
        # embedding runs through all layers and scores itself, or a piece with a long one.
        shared, signs = model.model.shared.weight, model.model.decoder.layers[-1].final_layer_norm.weight
        shared.div_(shared.norm(dim=1, keepdim=True).clamp(min=0.1)).mul_(1.7)
        signs.normal_()
        model.final_logits_bias[0, 0] = 2  # so that some drafts end
    model.save_pretrained(folder)
    return model


STUDENT = {
    "type": "transformer",
    "dim-emb": 32,
    "enc-depth": 2,
    "dec-depth": 2,
    "transformer-heads": 4,
    "transformer-dim-ffn": 48,
    "transformer-decoder-autoreg": "rnn",
    "dec-cell": "ssru",
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": 2,
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "",
    "tied-embeddings-all": True,
    "right-left": False,
}


def random_weights(options: dict, vocabulary: int, *, seed: int = 5) -> dict[str, np.ndarray]:
    """Weights of a network by Marian's names, shaped as Marian shapes them."""
    chance = np.random.default_rng(seed)
    c, f = options["dim-emb"], options["transformer-dim-ffn"]
    shapes: dict[str, tuple[int, ...]] = {"Wemb": (vocabulary, c), "decoder_ff_logit_out_b": (1, vocabulary)}

    def norm(name: str, before: str) -> None:
        for place, operations, suffix in ((before, "preprocess", "_pre"), (name, "postprocess", "")):
            if "n" in options[f"transformer-{operations}"]:
                shapes[f"{place}_ln_scale{suffix}"] = shapes[f"{place}_ln_bias{suffix}"] = (1, c)

    for side, depth in (("encoder", options["enc-depth"]), ("decoder", options["dec-depth"])):
        for layer in range(1, depth + 1):
            prefix = f"{side}_l{layer}"
            recurrent = side == "decoder" and options["transformer-decoder-autoreg"] == "rnn"
            for kind in [*([] if recurrent else ["self"]), *(["context"] if side == "decoder" else [])]:
                shapes |= {f"{prefix}_{kind}_W{one}": (c, c) for one in "qkvo"}
                shapes |= {f"{prefix}_{kind}_b{one}": (1, c) for one in "qkvo"}
                norm(f"{prefix}_{kind}_Wo", f"{prefix}_{kind}_Wo")
            if recurrent:
                shapes |= {f"{prefix}_rnn_W": (c, c), f"{prefix}_rnn_Wf": (c, c), f"{prefix}_rnn_bf": (1, c)}
                norm(f"{prefix}_rnn_ffn", f"{prefix}_rnn")
            shapes |= {f"{prefix}_ffn_W1": (c, f), f"{prefix}_ffn_b1": (1, f)}
            shapes |= {f"{prefix}_ffn_W2": (f, c), f"{prefix}_ffn_b2": (1, c)}
            norm(f"{prefix}_ffn_ffn", f"{prefix}_ffn_ffn")
        if "n" in options["transformer-postprocess-top"]:
            shapes |= {f"{side}_top_ln_scale": (1, c), f"{side}_top_ln_bias": (1, c)}
    return {name: chance.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def model_yml(options: dict) -> np.ndarray:
    """The options as Marian keeps them in a model: text with a zero behind it."""
    return np.frombuffer(yaml.safe_dump(options).encode() + b"\0", np.int8)


def save_npz(file: Path, options: dict, weights: dict[str, np.ndarray]) -> None:
    """As `marian` does."""
    with file.open("wb") as stream:
        np.savez(stream, **weights, **{"special:model.yml": model_yml(options)})


def quantised(weights: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, float]]:
    """The matrices that are kept as int8, with their multipliers."""
    chosen = {name: value for name, value in weights.items() if re.search(r"_W[a-z0-9]?$|Wemb", name)}
    multipliers = {name: np.float32(127 / np.abs(value).max()) for name, value in chosen.items()}
    return {
        name: (np.rint(value * multipliers[name]).astype(np.int8), multipliers[name]) for name, value in chosen.items()
    }


def bin_bytes(options: dict, weights: dict[str, np.ndarray], *, int8: bool = True) -> bytes:
    """A ``.bin`` file of version 1, as `marian-conv --gemm-type intgemm8` writes it."""
    small = quantised(weights) if int8 else {}
    items = []
    for name, value in sorted(weights.items()):
        if name in small:
            matrix, multiplier = small[name]
            matrix = matrix if "Wemb" in name else matrix.T
            items.append((name, 0x4101, value.shape, matrix.tobytes() + struct.pack("<f", multiplier)))
            # Multipliers of inputs, of the models with "alphas" in their names.
            items.append((f"{name}_QuantMultA", 0x404, (1, 1), struct.pack("<f", 20.0)))
        else:
            items.append((name, 0x404, value.shape, value.tobytes()))
    text = model_yml(options)
    items.append(("special:model.yml", 0x101, text.shape, text.tobytes()))
    items = [(name, kind, shape, data.ljust(-(-len(data) // 256) * 256, b"\0")) for name, kind, shape, data in items]
    head = struct.pack("<2Q", 1, len(items))
    for name, kind, shape, data in items:
        head += struct.pack("<4Q", len(name) + 1, kind, len(shape), len(data))
    head += b"".join(name.encode() + b"\0" for name, *_ in items)
    head += b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, _, shape, _ in items)
    offset = -(len(head) + 8) % 256
    return head + struct.pack("<Q", offset) + bytes(offset) + b"".join(data for *_, data in items)


def save_student(folder: Path) -> dict[str, np.ndarray]:
    """``model.enes.intgemm.alphas.bin`` and ``vocab.enes.spm``; returns the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = train_pieces(["en", "es"])
    weights = random_weights(STUDENT, len(sentencepiece.SentencePieceProcessor(model_proto=pieces)))
    (folder / "vocab.enes.spm").write_bytes(pieces)
    (folder / "model.enes.intgemm.alphas.bin").write_bytes(bin_bytes(STUDENT, weights))
    (folder / "lex.50.50.enes.s2t.bin").write_bytes(struct.pack("<6Q", 0xF11A48D5013417F5, 1, 2, 3, 4, 5))
    return weights


def marian_names(theirs) -> dict[str, np.ndarray]:
    """Weights of `transformers` by Marian's names, shaped as Marian shapes them."""
    given = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    found = {"Wemb": given["model.shared.weight"], "decoder_ff_logit_out_b": given["final_logits_bias"]}
    kinds = {"self_attn": "self", "encoder_attn": "context"}
    for name, value in given.items():
        part = re.fullmatch(r"model\.(encoder|decoder)\.layers\.(\d)\.(\w+?)(?:\.(\w+))?\.(weight|bias)", name)
        if part is None:
            continue
        side, layer, module, inner, kind = part.groups()
        prefix = f"{side}_l{int(layer) + 1}"
        if module in kinds:
            found[f"{prefix}_{kinds[module]}_{'Wb'[kind == 'bias']}{inner[0]}"] = (
                value.T if value.ndim == 2 else value[None]
            )
        elif module in ("fc1", "fc2"):
            found[f"{prefix}_ffn_{'Wb'[kind == 'bias']}{module[-1]}"] = value.T if value.ndim == 2 else value[None]
        else:
            own = module.removesuffix("_layer_norm")
            place = "ffn_ffn" if own == "final" else f"{kinds[own]}_Wo"
            found[f"{prefix}_{place}_ln_{'scale' if kind == 'weight' else 'bias'}"] = value[None]
    return found
