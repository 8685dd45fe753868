"""How well a model does: word error rates and emission delays of each source, head and latency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from loquent.asr.conformer.adaptive import AdaptiveConformerEncoder
from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.emission.delay import EmissionDelay, WordTime, frames_needed, token_ends, word_delays
from loquent.asr.search.ctc import CTCGreedySearch
from loquent.asr.search.tokens import Token, TokenSearch
from loquent.asr.search.transducer_greedy import TransducerGreedySearch
from loquent.recipes.data.dataset import padded, whole_batches
from loquent.recipes.data.manifest import Utterance
from loquent.recipes.loop.error_rate import ErrorTally
from loquent.speech.nn.streaming import Chunk

FRAME_MS = 80  # an encoder frame


@dataclass
class _Findings:
    errors: ErrorTally = field(default_factory=ErrorTally)
    delays_ms: list[float] = field(default_factory=list)


@torch.no_grad()
def evaluate(
    model: ConformerModel,
    tokenizer: SubwordTokenizer,
    sources: Mapping[str, Sequence[Utterance]],
    reference: ConformerModel | None = None,
    batch_s: float = 200,
) -> dict[str, float]:
    """Figures of greedy search.

    Args:
        model: in evaluation mode.
        sources: recordings with their texts, by name.
        reference: a model of the same tokens that times the words, with its CTC head at its largest look-ahead; for
            emission delays to be compared, all models need the same. None for no delays.
        batch_s: audio that is recognised at once, in seconds.

    Returns:
        Word error rates in per cent under names such as ``coffee/ctc/160ms``, "wer" their mean; the latency is how much
        later than a word's last frame it can be written, one chunk of the look-ahead's R + 1 frames, or ``adaptive``.
        With a reference, the delays, see `EmissionDelay.figures`.
        For an adaptive encoder ``wait_p50_ms`` and ``wait_p95_ms``, how long frames wait for others, and ``ahead``, the
        frames that a layer looks ahead, on average.
    """
    device = next(model.parameters()).device
    searches: dict[str, TokenSearch] = {}
    if model.ctc is not None:
        searches["ctc"] = CTCGreedySearch(model.ctc)
    if model.transducer is not None:
        searches["transducer"] = TransducerGreedySearch(model.transducer)
    findings: dict[str, _Findings] = defaultdict(_Findings)
    waits, ahead = [], []
    for name, rows in sources.items():
        for batch in whole_batches(rows, batch_s):
            samples, length = (one.to(device) for one in padded(batch))
            spoken = _spoken(reference, tokenizer, samples, length, batch) if reference else None
            for way in _ways(model, samples, length):
                for head, search in searches.items():
                    one = findings[f"{name}/{head}/{way.name}"]
                    for row, tokens in enumerate(_searched(search, way.encoded, way.length)):
                        one.errors.add(batch[row].text, tokenizer.decode(token.id for token in tokens))
                        if spoken is not None:
                            come = way.come[row].tolist()
                            emitted = _words(tokenizer, ((token.id, come[token.frame]) for token in tokens))
                            one.delays_ms += word_delays(emitted, spoken[row])
                if way.ahead is not None:
                    inside = torch.arange(way.come.shape[1], device=device) < way.length[:, None]
                    frame = torch.arange(1, way.come.shape[1] + 1, device=device)
                    waits.append((way.come - frame)[inside].cpu())
                    ahead.append(way.ahead[inside].cpu())
    rates = {name: one.errors.rate for name, one in findings.items()}
    figures = {"wer": sum(rates.values()) / max(len(rates), 1), **rates}
    for name, one in findings.items():
        if reference is not None:
            figures |= EmissionDelay.of(one.delays_ms).figures(name)
    if waits:
        wait_ms = FRAME_MS * torch.cat(waits).numpy()
        figures |= {"wait_p50_ms": float(np.median(wait_ms)), "wait_p95_ms": float(np.percentile(wait_ms, 95))}
        figures["ahead"] = float(torch.cat(ahead).mean())
    return figures


@dataclass(frozen=True)
class _Way:
    """Recordings as encoded at one latency.

    come:  (B, T) int64, frames that have come when each one is put out.
    ahead: (B, T), frames that a layer looks ahead, where that is the encoder's own decision.
    """

    name: str
    encoded: Tensor
    length: Tensor
    come: Tensor
    ahead: Tensor | None = None


def _ways(model: ConformerModel, samples: Tensor, length: Tensor) -> Iterator[_Way]:
    mel, mel_frames = model.log_mel(samples, length)
    if isinstance(model.encoder, AdaptiveConformerEncoder):
        found = model.encoder.encode(mel, mel_frames)
        frame = torch.arange(1, found.wait.shape[1] + 1, device=mel.device)
        yield _Way("adaptive", found.encoded, found.length, frame + found.wait.long(), found.ahead)
        return
    frames = model.encoder.output_length(mel_frames)
    for lookahead in sorted(model.config.encoder.lookaheads):
        encoded = model.encoder(mel, mel_frames, lookahead)
        frame = torch.arange(encoded.shape[1], device=mel.device)
        come = frames_needed(frame, lookahead, frames[:, None])
        yield _Way(f"{FRAME_MS * (lookahead + 1)}ms", encoded, frames, come)


def _searched(search: TokenSearch, encoded: Tensor, length: Tensor) -> list[list[Token]]:
    """Tokens of whole recordings."""
    rows = torch.arange(len(length), device=encoded.device)
    state, memos = search.initial_state(len(rows)), [search.start() for _ in rows]
    advances = search.step(Chunk(encoded, length, torch.ones_like(rows, dtype=torch.bool)), state, rows, memos)
    return [advance.committed for advance in advances]


def _spoken(
    reference: ConformerModel, tokenizer: SubwordTokenizer, samples: Tensor, length: Tensor, rows: Sequence[Utterance]
) -> list[list[WordTime]]:
    """When each word of the texts ends."""
    if reference.ctc is None or isinstance(reference.encoder, AdaptiveConformerEncoder):
        raise ValueError("words are timed by a model with a CTC head and fixed look-aheads; choose another reference")
    encoded, frames = reference(samples, length, max(reference.config.encoder.lookaheads))
    log_probs = reference.ctc(encoded).cpu()
    spoken = []
    for row, utterance in enumerate(rows):
        tokens = tokenizer.encode(utterance.text)
        ends = token_ends(log_probs[row, : int(frames[row])], tokens)
        spoken.append([] if ends is None else _words(tokenizer, zip(tokens, ends, strict=True)))
    return spoken


def _words(tokenizer: SubwordTokenizer, tokens: Iterable[tuple[int, int]]) -> list[WordTime]:
    """Words of (token, frames that had come), each timed by its last token."""
    words: list[tuple[list[int], int]] = []
    for token, come in tokens:
        begun = words and not tokenizer.is_word_start(token)
        words.append(([*words.pop()[0], token] if begun else [token], come))
    return [WordTime(tokenizer.decode(ids), come * FRAME_MS / 1000) for ids, come in words]
