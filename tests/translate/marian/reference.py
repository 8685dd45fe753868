"""The equations of Marian's transformer in plain numpy, one sentence and one step at a time.

Written from marian-dev's ``src/models/transformer.h``, ``src/rnn/cells.h`` and ``src/graph/node_initializers.cpp``.
"""

from __future__ import annotations

import math

import numpy as np


class Reference:
    """A network of Marian's options and weights; see `logits`."""

    def __init__(self, options: dict, weights: dict[str, np.ndarray]) -> None:
        self.options, self.weights = options, {name: value.astype(np.float64) for name, value in weights.items()}

    def logits(self, source: list[int], target: list[int]) -> np.ndarray:
        """Scores (len(target) + 1, V) of each piece of the target and of the one behind it, given those before."""
        options, w = self.options, self.weights
        first = x = self.embed([w["Wemb"][piece] for piece in source])
        for layer in range(1, options["enc-depth"] + 1):
            x = self.attend(f"encoder_l{layer}_self", x, None, causal=False)
            x = self.feed(f"encoder_l{layer}_ffn", x)
        memory = self.after("encoder_top", x, first, "postprocess-top")
        first = y = self.embed([np.zeros(options["dim-emb"]), *(w["Wemb"][piece] for piece in target)])
        for layer in range(1, options["dec-depth"] + 1):
            if options["transformer-decoder-autoreg"] == "rnn":
                y = self.ssru(f"decoder_l{layer}_rnn", y)
            else:
                y = self.attend(f"decoder_l{layer}_self", y, None, causal=True)
            y = self.attend(f"decoder_l{layer}_context", y, memory, causal=False)
            y = self.feed(f"decoder_l{layer}_ffn", y)
        y = self.after("decoder_top", y, first, "postprocess-top")
        return y @ w["Wemb"].T + w["decoder_ff_logit_out_b"]

    def embed(self, rows: list[np.ndarray]) -> np.ndarray:
        size = self.options["dim-emb"]
        scales = size // 2
        x = math.sqrt(size) * np.array(rows)
        for position in range(len(rows)):
            for i in range(scales):
                angle = position * math.exp(i * -math.log(10000) / (scales - 1))
                x[position, i] += math.sin(angle)
                x[position, scales + i] += math.cos(angle)
        return x

    def ssru(self, name: str, x: np.ndarray) -> np.ndarray:
        w = self.weights
        given = self.before(name, x)
        cell, out = np.zeros(x.shape[1]), []
        for step in given:
            gate = 1 / (1 + np.exp(-(step @ w[f"{name}_Wf"] + w[f"{name}_bf"][0])))
            cell = gate * cell + (1 - gate) * (step @ w[f"{name}_W"])
            out.append(np.maximum(cell, 0))
        return self.after(f"{name}_ffn", np.array(out), x)

    def attend(self, name: str, x: np.ndarray, memory: np.ndarray | None, causal: bool) -> np.ndarray:
        w, heads = self.weights, self.options["transformer-heads"]
        given = self.before(f"{name}_Wo", x)
        memory = given if memory is None else memory
        q = given @ w[f"{name}_Wq"] + w[f"{name}_bq"]
        k, v = (memory @ w[f"{name}_W{one}"] + w[f"{name}_b{one}"] for one in "kv")
        out = np.zeros_like(q)
        size = q.shape[1] // heads
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for t in range(len(q)):
                seen = t + 1 if causal else len(k)
                score = q[t, part] @ k[:seen, part].T / math.sqrt(size)
                weight = np.exp(score - score.max())
                out[t, part] = weight / weight.sum() @ v[:seen, part]
        return self.after(f"{name}_Wo", out @ w[f"{name}_Wo"] + w[f"{name}_bo"], x)

    def feed(self, name: str, x: np.ndarray) -> np.ndarray:
        w = self.weights
        y = self.before(f"{name}_ffn", x) @ w[f"{name}_W1"] + w[f"{name}_b1"]
        y = np.maximum(y, 0) if self.options["transformer-ffn-activation"] == "relu" else y / (1 + np.exp(-y))
        return self.after(f"{name}_ffn", y @ w[f"{name}_W2"] + w[f"{name}_b2"], x)

    def before(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.norm(name, x, "_pre") if "n" in self.options["transformer-preprocess"] else x

    def after(self, name: str, y: np.ndarray, x: np.ndarray, operations: str = "postprocess") -> np.ndarray:
        for operation in self.options[f"transformer-{operations}"]:
            if operation == "a":
                y = y + x
            if operation == "n":
                y = self.norm(name, y, "")
        return y

    def norm(self, name: str, x: np.ndarray, suffix: str) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        scale, bias = (self.weights[f"{name}_ln_{one}{suffix}"] for one in ("scale", "bias"))
        return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * scale + bias
