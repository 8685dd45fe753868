"""The flow voice: its networks, and how they are kept in a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from loquent.speech.json_files import read_json_object
from loquent.speech.runtime.options import parse_options
from loquent.tts.flow_voice.acoustic import AcousticConfig, AcousticNet
from loquent.tts.flow_voice.prosody import ProsodyConfig, ProsodyNet
from loquent.tts.flow_voice.vocoder import Vocoder, VocoderConfig

MODEL_TYPE = "loquent-voice"


@dataclass(frozen=True)
class NetsConfig:
    """Sizes of the networks, and what they know.

    alphabet: id of each phone. speakers: names; the first is the default.
    """

    alphabet: dict[str, int]
    speakers: tuple[str, ...]
    prosody: ProsodyConfig
    acoustic: AcousticConfig
    vocoder: VocoderConfig


class Nets(nn.Module):
    """The networks of a voice."""

    def __init__(self, config: NetsConfig) -> None:
        super().__init__()
        self.config = config
        self.prosody = ProsodyNet(config.prosody)
        self.acoustic = AcousticNet(config.acoustic)
        self.vocoder = Vocoder(config.vocoder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a folder that `save` wrote.

        Raises:
            ValueError: the folder holds something else.
        """
        path = Path(folder)
        values: dict[str, Any] = read_json_object(path / "config.json")
        if values.pop("model_type", None) != MODEL_TYPE:
            raise ValueError(
                f"{os.fspath(path)!r} holds no flow voice: model_type in its config.json is not {MODEL_TYPE!r}"
            )
        nets = cls(parse_options(NetsConfig, values))
        weights = load_file(path / "model.safetensors")
        nets.load_state_dict({name: weight.float() for name, weight in weights.items()})
        return nets.eval()

    def save(self, folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        config = {"model_type": MODEL_TYPE, **asdict(self.config)}
        (path / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        weights = {name: value.to(dtype).contiguous() for name, value in self.state_dict().items()}
        save_file(weights, path / "model.safetensors")

    def fingerprint(self, settings: Mapping[str, Any]) -> str:
        """Of the weights and of settings."""
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, value in self.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
