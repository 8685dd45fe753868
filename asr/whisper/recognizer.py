"""The recogniser whose model is a Whisper."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from loquent.asr.options import checked_options
from loquent.asr.recognizer import ComputeType, Recognizer
from loquent.asr.recordings.recording import MelRecording, RecordingSource
from loquent.asr.whisper.adapter_bank import NONE, AdapterBank
from loquent.asr.whisper.checkpoint import load_whisper
from loquent.asr.whisper.live.options import StreamingOptions, WhisperStreamOptions
from loquent.asr.whisper.lora import LoraAdapter, adapter_info, base_digest, load_adapter, merge
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.offline.decoding import WindowDecoder
from loquent.asr.whisper.offline.options import TranscribeOptions
from loquent.asr.whisper.offline.transcribe import transcribe
from loquent.asr.whisper.quantization import int8_layers, quantize_int8
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.errors import AudioError
from loquent.speech.hub import SHIPPED_ADAPTERS
from loquent.speech.text.languages import language_codes, only_language
from loquent.speech.transcript import Progress, Segment, Transcript

if TYPE_CHECKING:
    from loquent.asr.whisper.live.task import WhisperStreamingTask


class WhisperRecognizer(Recognizer):
    """Transcribes and translates with a Whisper.

    Attributes:
        model, tokenizer: what it was built from.
        adapters: that streams may choose from.
        uses_shipped_adapter: whether streams go through the adapter that comes with loquent for the model, if any.
    """

    Settings = StreamingOptions
    Options = WhisperStreamOptions

    def __init__(self, model: Whisper, tokenizer: WhisperTokenizer, *, batch: int = 8) -> None:
        super().__init__(batch)
        tokenizer.check_model(model.config.n_vocab)
        self.model, self.tokenizer = model, tokenizer
        self.adapters = AdapterBank(model)
        self.uses_shipped_adapter = True

    @functools.cached_property
    def _decoder(self) -> WindowDecoder:
        """What decodes recordings: with a vocabulary in int8, in int8 throughout."""
        int8 = self.model.decoder.int8_vocabulary is not None
        return WindowDecoder(int8_layers(self.model) if int8 else self.model, self.tokenizer)

    @property
    def live_adapter(self) -> str | None:
        """See `Recognizer`."""
        return self.adapters.default

    @classmethod
    def load(cls, path: Path, device: torch.device, compute_type: ComputeType) -> WhisperRecognizer:
        """Read a checkpoint; see `Recognizer.from_pretrained`."""
        if compute_type == "auto":  # without the engine int8 is emulated, exactly but slowly
            fast = device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines
            compute_type = "int8" if fast else "float32"
        tokenizer = WhisperTokenizer.load(path if path.is_dir() else path.parent)
        loaded = load_whisper(path)
        model = Whisper.from_weights(loaded.config, loaded.weights, float_vocabulary=compute_type == "float32")
        if compute_type == "int8":
            quantize_int8(model)
        return cls(model.to(device), tokenizer)

    def segments(
        self, sources: Iterable[RecordingSource], *, progress: Progress | None = None, **options: Any
    ) -> Iterator[tuple[int, Segment | Transcript | AudioError]]:
        """Transcribe recordings, yielding each segment as it becomes final; options: `TranscribeOptions`."""
        chosen = checked_options(TranscribeOptions, options)
        return transcribe(self._decoder, sources, chosen, batch=self.batch, progress=progress)

    def streaming_task(self, **options: Any) -> WhisperStreamingTask:
        """What an `Engine` runs; options are the fields of `StreamingOptions`.

        If the bank's default adapter was trained to stream, so does the task by default: with the policy "incremental",
        in chunks of the trained size that is next to 300 ms and in blocks of the trained size. Where the bank has no
        adapter, the one that comes with loquent for this very model is the default, if that policy is asked for or the
        streams are in its language: one that ``language`` names, or the only one that the model knows.
        """
        from loquent.asr.whisper.live.task import WhisperStreamingTask  # which recordings do without

        checked_options(StreamingOptions, {name: options[name] for name in ("language",) if name in options})
        language = options.get("language") or (None if self.tokenizer.is_multilingual else "en")
        language = only_language(language)
        policy = options.get("policy")
        if (policy == "incremental" or (policy is None and language)) and not len(self.adapters):
            self._add_shipped(None if policy else language)
        default = None if self.adapters.default is None else self.adapters[self.adapters.default].info
        if default is not None and default.chunk_ms:
            # Streams of unknown languages go through an adapter that was asked for, but not through the shipped one.
            unknown = language is None and self.adapters.default not in SHIPPED_ADAPTERS
            if unknown or default.language in (None, language):
                options.setdefault("policy", "incremental")
            if options.get("policy") == "incremental":
                chunk = options.setdefault("chunk_ms", min(default.chunk_ms, key=lambda chunk: abs(chunk - 300)))
                if options.get("block_ms") is None and default.block_ms is not None and isinstance(chunk, int):
                    options["block_ms"] = max(default.block_ms, chunk)
        chosen = checked_options(StreamingOptions, options)
        return WhisperStreamingTask(self.model, self.tokenizer, chosen, self.adapters)

    def _add_shipped(self, language: str | None) -> None:
        """Make loquent's own adapter for this model (and this language), if there is one, that of streams."""
        for name in SHIPPED_ADAPTERS if self.uses_shipped_adapter else ():
            info = adapter_info(name)
            if info.base_digest == base_digest(self.model) and language in (None, info.language):
                self.add_adapter(name, name, default=True)

    def adapt(self, adapter: str | os.PathLike[str] | LoraAdapter) -> None:
        """Put everything that is recognised from now on through an adapter (see `Recognizer.adapt`).

        One that was trained to stream becomes the default of streams, and recordings stay with the model as it is; any
        other is merged into the weights, which streams under way would notice: there must be none. "none" leaves the
        model as it is, without the adapter that comes with loquent.
        """
        self.uses_shipped_adapter = False
        if adapter == NONE:
            return
        name = "default" if isinstance(adapter, LoraAdapter) else Path(adapter).resolve().name
        adapter = _loaded(adapter)
        if adapter.info.chunk_ms:
            self.add_adapter(name, adapter, default=True)
        else:
            merge(self.model, adapter)
            vars(self).pop("_decoder", None)

    def add_adapter(self, name: str, adapter: str | os.PathLike[str] | LoraAdapter, *, default: bool = False) -> None:
        """Offer an adapter to streams, which choose it by name (see `Recognizer.add_adapter`)."""
        self.adapters.add(name, _loaded(adapter))
        if default:
            self.adapters.default = name

    def detect_language(self, source: RecordingSource, language: str | None = None) -> dict[str, float]:
        """Probability of each language in the first 30 s of a recording (see `Recognizer.detect_language`)."""
        among = language_codes(language)
        for code in among:
            self.tokenizer.sot_sequence(code)
        recording = MelRecording(source, self.model.config.n_mels)
        mel = recording.window(0, recording.size_until(self._decoder.window)).mel
        recording.close()
        with torch.inference_mode():
            memory = self._decoder.encode([torch.nn.functional.pad(mel, (0, 0, 0, self._decoder.window - len(mel)))])
            return self._decoder.detect_language(memory, [0], among)[0]


def _loaded(adapter: str | os.PathLike[str] | LoraAdapter) -> LoraAdapter:
    return adapter if isinstance(adapter, LoraAdapter) else load_adapter(adapter)
