"""Align With Purpose: teach a CTC model which of its alignments to prefer (arXiv 2307.01715).

CTC sums over all alignments of the text and does not care when a token is emitted, nor which wrong text it loses to.
This loss is added to it: draw alignments from the model's own posteriors, turn each into one that is a little better
in some property, and ask that the better one be likelier (a hinge). Two properties: `earlier` (every token after a
random frame comes one frame sooner, the text unchanged) and `WordCorrection` (one wrong word made right).

An alignment is one token or blank for each frame; its text follows by merging repetitions, then dropping blanks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torchaudio.functional
from torch import Tensor
from torch.nn import functional as F

from loquent.asr.emission.edit_distance import align_sequences

# Log-probs (B, T, V + 1), alignments (B, N, T), length (B,) to better alignments (B, N, T), and which are better (B, N)
Property = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def align_with_purpose_loss(
    log_probs: Tensor,
    length: Tensor,
    improve: Property,
    *,
    samples: int = 5,
    margin: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean over sampled alignments a of max(0, log P(a) - log P(improve(a)) + margin), equation 4 of the paper.

    Add it to the CTC loss with a small weight (the paper: 0.01 for low latency with 5 samples, 0.1 for word errors with
    10) once the model has learnt to align.

    Args:
        log_probs: (B, T, V + 1) float, log-posteriors of each frame with the blank last.
        length: (B,) int64, valid frames of each row.
        improve: the property; see `earlier` and `WordCorrection`.
        samples: alignments drawn for each row.
        margin: by how many nats the better alignment has to be likelier.
        generator: of the random draws, on the device of ``log_probs``.

    Returns:
        (B,) nats; samples without a better alignment count as zero.
    """
    frames = torch.arange(log_probs.shape[1], device=log_probs.device)
    valid = (frames < length[:, None])[:, None]
    with torch.no_grad():
        worse = sample_alignments(log_probs, length, samples, generator)
        better, found = improve(log_probs.detach(), worse, length)
    # Only the frames in which the two differ carry a gradient, and the difference of sums is the sum of differences.
    by_token = log_probs.float()
    gain = by_token.gather(2, better.transpose(1, 2)) - by_token.gather(2, worse.transpose(1, 2))  # (B, T, N)
    gain = torch.where(valid.transpose(1, 2), gain, 0).sum(1)
    return torch.where(found, F.relu(margin - gain), 0).mean(1)


def sample_alignments(
    log_probs: Tensor, length: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw alignments from the frame posteriors: (B, T, V + 1) to (B, N, T) int64, blank beyond a row's length."""
    batch, steps, classes = log_probs.shape
    flat = log_probs.detach().float().softmax(-1).reshape(batch * steps, classes)
    drawn = torch.multinomial(flat, count, replacement=True, generator=generator)
    drawn = drawn.reshape(batch, steps, count).transpose(1, 2)
    valid = torch.arange(steps, device=drawn.device) < length[:, None]
    return torch.where(valid[:, None], drawn, classes - 1)


@dataclass(frozen=True)
class Earlier:
    """The low-latency property: drop a random frame's label and shift what follows one frame to the left.

    A frame may be dropped where the text survives it: it repeats its predecessor, or is a blank between unlike labels;
    and where some token starts after it, so that the shift makes that token come sooner.
    """

    generator: torch.Generator | None = None

    def __call__(self, log_probs: Tensor, alignments: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Shift (B, N, T) alignments; a row's last frame becomes blank."""
        blank, steps = log_probs.shape[2] - 1, alignments.shape[2]
        frames = torch.arange(steps, device=alignments.device)
        inside = frames < length[:, None, None]
        alignments = torch.where(inside, alignments, blank)
        before = F.pad(alignments[..., :-1], (1, 0), value=-1)
        after = F.pad(alignments[..., 1:], (0, 1), value=blank)

        starts = (alignments != blank) & (alignments != before)
        last_start = torch.where(starts, frames, -1).amax(-1, keepdim=True)
        spare = (alignments == before) | ((alignments == blank) & (before != after))
        candidates = spare & (frames < last_start)
        draw = torch.rand(alignments.shape, generator=self.generator, device=alignments.device)
        dropped = draw.masked_fill(~candidates, -1).argmax(-1, keepdim=True)
        found = candidates.any(-1)
        return torch.where(found[..., None] & (frames >= dropped), after, alignments), found


@dataclass(frozen=True)
class WordCorrection:
    """The word-error property: replace one random wrong word of the alignment by what the transcript has there.

    The right tokens are laid over the frames between the neighbouring words along their likeliest path. A wrong word
    whose correction does not fit into its frames is left.

    Args:
        targets: (B, U) int64, tokens of the transcripts.
        target_length: (B,) int64.
        word_start: whether each of the V tokens begins a word.
        seed: of the choice among a sample's wrong words.
    """

    targets: Tensor
    target_length: Tensor
    word_start: Sequence[bool]
    seed: int = 0

    def __call__(self, log_probs: Tensor, alignments: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Correct one word in each of (B, N, T) alignments."""
        rng = random.Random(self.seed)
        better, device = alignments.cpu().clone(), alignments.device
        scores = log_probs.detach().float().cpu()
        found = torch.zeros(alignments.shape[:2], dtype=torch.bool)
        for row, steps in enumerate(length.tolist()):
            target = self.targets[row, : int(self.target_length[row])].tolist()
            for sample in range(alignments.shape[1]):
                corrected = self._correct(scores[row, :steps], better[row, sample, :steps], target, rng)
                if corrected is not None:
                    better[row, sample, :steps] = corrected
                    found[row, sample] = True
        return better.to(device), found.to(device)

    def _correct(self, scores: Tensor, alignment: Tensor, target: list[int], rng: random.Random) -> Tensor | None:
        """(T, V + 1) log-probs, (T,) alignment to the corrected alignment, or None where nothing can be corrected."""
        blank = scores.shape[1] - 1
        spans = token_spans(alignment, blank)
        hypothesis = self._words([token for token, _, _ in spans])
        reference = self._words(target)
        pairs = align_sequences(hypothesis, reference)
        first = 0  # spans before this pair
        places = []
        for i, j in pairs:
            size = 0 if i is None else len(hypothesis[i])
            right = () if j is None else reference[j]
            if i is None or right != hypothesis[i]:
                start = spans[first - 1][2] if first else 0
                end = spans[first + size][1] if first + size < len(spans) else len(alignment)
                text = [token for token, _, _ in (*spans[:first], *((t, 0, 0) for t in right), *spans[first + size :])]
                places.append((start, end, right, text))
            first += size
        for start, end, right, text in rng.sample(places, len(places)):
            path = likeliest_path(scores[start:end], right)
            if path is None:
                continue
            corrected = torch.cat([alignment[:start], path, alignment[end:]])
            if [token for token, _, _ in token_spans(corrected, blank)] == text:  # else it merged with a neighbour
                return corrected
        return None

    def _words(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        words: list[list[int]] = []
        for token in tokens:
            if self.word_start[token] or not words:
                words.append([])
            words[-1].append(token)
        return [tuple(word) for word in words]


def token_spans(alignment: Tensor, blank: int) -> list[tuple[int, int, int]]:
    """Text of a (T,) alignment: (token, its first frame, one past its last frame) of every token."""
    tokens, counts = torch.unique_consecutive(alignment, return_counts=True)
    ends = counts.cumsum(0)
    return [
        (token, end - count, end)
        for token, count, end in zip(tokens.tolist(), counts.tolist(), ends.tolist(), strict=True)
        if token != blank
    ]


def likeliest_path(log_probs: Tensor, tokens: Sequence[int]) -> Tensor | None:
    """Likeliest alignment of ``tokens`` with (T, V + 1) log-probs, (T,) int64; None where they do not fit."""
    steps, blank = log_probs.shape[0], log_probs.shape[1] - 1
    if not tokens:
        return torch.full((steps,), blank, device=log_probs.device)
    repeated = sum(a == b for a, b in itertools.pairwise(tokens))
    if steps < len(tokens) + repeated:
        return None
    targets = torch.tensor([list(tokens)], device=log_probs.device, dtype=torch.int32)
    path, _ = torchaudio.functional.forced_align(log_probs[None].detach().float().contiguous(), targets, blank=blank)
    return path[0].long()
