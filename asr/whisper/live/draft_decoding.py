"""Decoding that starts from a draft: what the last step wrote is verified in one pass, then written on.

After every chunk of audio most of a streaming hypothesis stays as it was. The draft's tokens are fed together, as in
speculative decoding; it is kept up to the first token that the model would no longer write, and decoding goes on from
there, greedily or with a beam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loquent.asr.whisper.beam_search import BeamSearch, DecodingOptions
from loquent.asr.whisper.live.attention import TokenAttention
from loquent.asr.whisper.model import TextDecoder
from loquent.asr.whisper.states import AudioMemory, DecoderState
from loquent.speech.nn.low_rank import Adapters
from loquent.speech.nn.streaming import Chunk

SHORTEST_LOOP = 24  # tokens
LOOP = 64  # tokens that tell whether a text loops: four rounds of a phrase of 16
QUICKEST = 8  # encoder frames (20 ms) that saying a phrase once more takes at least


@dataclass(frozen=True)
class Draft:
    """Where a hypothesis starts.

    prefix: tokens fed without question, at least one.
    tokens: hypothesis so far after the prefix, to be verified.
    scores: raw score that each of ``tokens`` had when it was last looked at.
    limit:  most tokens of the new hypothesis.
    past:   text tokens before the hypothesis, to recognise repetitions by.
    said:   encoder frame in which each of ``past`` was said.
    frames: encoder frames of audio.
    """

    prefix: list[int]
    tokens: list[int]
    scores: list[float]
    limit: int
    past: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)
    frames: int = 0


@dataclass
class StreamingHypothesis:
    """Tokens after a draft's prefix, with their raw scores, probabilities and attention to the audio (frames,).

    complete: whether the model had no more to say, rather than being cut by a limit.
    looped:   whether the model would have repeated one phrase over and over.
    finite:   whether all scores were numbers; if not, the tokens mean nothing.
    """

    tokens: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    complete: bool = False
    looped: bool = False
    finite: bool = True

    @property
    def attended(self) -> list[int]:
        """Encoder frame that each token attends to most."""
        return [int(one.argmax()) for one in self.attention]

    @property
    def others(self) -> tuple[list[int], ...]:
        """None: of a beam, only the best hypothesis is kept."""
        return ()

    def add(self, token: int, score: float, log_sum: float, attention: Tensor) -> None:
        """Append a token with its raw score, the log-sum-exp of all scores, and its attention."""
        self.tokens.append(token)
        self.scores.append(score)
        self.probabilities.append(math.exp(score - log_sum))
        self.attention.append(attention)


def repeats(tokens: list[int], frames: Callable[[], list[int]] | None = None) -> bool:
    """Whether a text ends in one phrase said over and over: a model that has begun to loop.

    A phrase counts from its fourth round on. People do say "no, no, no, no", so there must be 24 tokens of it; or the
    rounds must have followed each other faster than anybody speaks.

    Args:
        frames: encoder frames to which the tokens attend most, one for each; asked for only when they matter.
    """
    for size in range(1, LOOP // 4 + 1):
        span = 4 * size
        if len(tokens) < span or tokens[-span:-size] != tokens[-span + size :]:
            continue
        longer = size * max(4, -(-SHORTEST_LOOP // size))
        if len(tokens) >= longer and tokens[-longer:-size] == tokens[-longer + size :]:
            return True
        if frames is not None:
            places = frames()
            if places[-1] - places[-span] < 3 * QUICKEST:
                return True
    return False


class DraftDecoder:
    """Decodes many streams at once, and writes no loops: see `repeats`.

    Args:
        decoder: the text decoder.
        eot: the token that ends a hypothesis: "wait for more audio".
        suppressed: tokens never written.
        watch: (layer, head) pairs whose cross-attention follows the audio.
        lenient: also keep a drafted token whose raw score has risen since it was written, although another one is now
            ahead of it (the revision rule of arXiv 2508.12301); otherwise the result of greedy decoding is that of
            decoding from the prefix.
        beam_size: hypotheses of each stream that are followed; 1 is greedy. With more, a drafted token is kept as long
            as it is among so many best ones (the same source's rule for a beam).
        normalize: whether attention is normalised over the tokens (see `TokenAttention`), which takes prefixes that
            begin with their window; otherwise it is that of the heads.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        eot: int,
        suppressed: tuple[int, ...],
        watch: tuple[tuple[int, int], ...],
        lenient: bool = False,
        beam_size: int = 1,
        normalize: bool = False,
    ) -> None:
        self.decoder, self.eot, self.watch, self.lenient, self.beam_size = decoder, eot, watch, lenient, beam_size
        self.normalize = normalize
        self.bias = torch.zeros(decoder.token_embedding.num_embeddings, device=decoder.ln.weight.device)
        self.bias[list(suppressed)] = -torch.inf

    def __call__(
        self,
        drafts: list[Draft],
        state: DecoderState,
        rows: Tensor,
        memory: AudioMemory,
        memory_rows: Tensor,
        adapters: Adapters | None = None,
    ) -> list[StreamingHypothesis]:
        """Decode; the state holds what precedes the prefixes, and afterwards they and all but the last new token.

        Args:
            rows: (B,) slots of ``state``, one per draft.
            memory_rows: (B,) slots of ``memory``.
            adapters: of the drafts.
        """
        writing = Writing(drafts, state, rows, memory, memory_rows, adapters)
        scores, attention = self._verify(writing)
        if self.beam_size == 1:
            self._write_on(writing, scores, attention)
        else:
            self._take_over(writing, self._search(writing, scores), scores, attention)
        return writing.hypotheses

    def _verify(self, writing: Writing) -> tuple[Tensor, list[Tensor]]:
        """Feed prefixes and drafts, and keep of these what still holds.

        Returns:
            Scores (B, V) of what may follow the kept tokens, and the attention (frames,) that goes with each.
        """
        drafts, state, rows = writing.drafts, writing.state, writing.rows
        start = state.position[rows]
        hidden, heads = self._feed(writing, [draft.prefix + draft.tokens for draft in drafts])
        # Scores after the last token of each prefix and after every drafted token, in one product.
        first = [len(draft.prefix) - 1 for draft in drafts]
        place = [(row, step) for row, one in enumerate(first) for step in range(one, one + len(drafts[row].tokens) + 1)]
        row, step = torch.tensor(place, device=rows.device).unbind(1)
        scores = self._scores(hidden[row, step])
        drafted = torch.tensor([t for draft in drafts for t in [*draft.tokens, self.eot]], device=rows.device)
        old = scores.gather(1, drafted[:, None])
        old_scores, ranks = old[:, 0].tolist(), (scores > old).sum(-1).tolist()
        log_sums = scores.logsumexp(-1).tolist()

        kept, following, at = [], list[Tensor](), 0
        for index, (draft, hypothesis) in enumerate(zip(drafts, writing.hypotheses, strict=True)):
            hypothesis.finite = all(map(math.isfinite, log_sums[at : at + len(draft.tokens) + 1]))
            count = 0
            for old_score, rank, score in zip(old_scores[at:], ranks[at:], draft.scores[: draft.limit], strict=False):
                if (rank >= self.beam_size and not (self.lenient and old_score > score)) or not hypothesis.finite:
                    break
                count += 1
            *attention, after = self._where(writing, index, heads[index, :, : first[index] + 1 + count], first[index])
            for token, *figures in zip(draft.tokens, old_scores[at:], log_sums[at:], attention, strict=False):
                hypothesis.add(token, *figures)
            following.append(after)
            kept.append(at + count)
            at += len(draft.tokens) + 1
        state.position[rows] = start + torch.tensor(
            [one + 1 + len(hypothesis.tokens) for one, hypothesis in zip(first, writing.hypotheses, strict=True)],
            device=rows.device,
        )
        return scores[torch.tensor(kept, device=rows.device)], following

    def _write_on(self, writing: Writing, scores: Tensor, attention: Sequence[Tensor]) -> None:
        """Go on greedily, all streams token by token, until each would wait."""
        while going := self._decide(writing, scores, attention):
            if len(going) < len(writing.drafts):
                writing = writing.select(going)
            hidden, heads = self._feed(writing, [hypothesis.tokens[-1:] for hypothesis in writing.hypotheses])
            scores = self._scores(hidden[:, 0])
            attention = [self._where(writing, index, own)[0] for index, own in enumerate(heads)]

    def _decide(self, writing: Writing, scores: Tensor, attention: Sequence[Tensor]) -> list[int]:
        """Append the best token to each text, and tell which streams go on; the others would wait.

        A token that would go on with a loop is passed over for the next best one: the audio of what is said next is
        still to come.
        """
        log_sums = scores.logsumexp(-1).tolist()
        best_scores, best = (x.tolist() for x in scores.max(-1))
        going = []
        for index, (draft, hypothesis) in enumerate(zip(writing.drafts, writing.hypotheses, strict=True)):
            hypothesis.finite = hypothesis.finite and math.isfinite(log_sums[index])
            if not hypothesis.finite:
                continue
            full = len(hypothesis.tokens) >= draft.limit
            while not full and best[index] != self.eot and loops(draft, hypothesis, best[index], attention[index]):
                hypothesis.looped = True
                scores[index, best[index]] = -torch.inf
                best_scores[index], best[index] = (x.item() for x in scores[index].max(-1))
            hypothesis.complete = best[index] == self.eot
            if not (hypothesis.complete or full):
                hypothesis.add(best[index], best_scores[index], log_sums[index], attention[index])
                going.append(index)
        return going

    def _search(self, writing: Writing, scores: Tensor) -> list[list[int]]:
        """Follow several continuations of each stream in slots of their own; returns the most probable one of each.

        They are ranked by their whole probability, "wait" included, not per token: a moment's text is as long as what
        was said in it.
        """
        room = [
            draft.limit - len(one.tokens) if one.finite else 0
            for draft, one in zip(writing.drafts, writing.hypotheses, strict=True)
        ]
        options = DecodingOptions(beam_size=self.beam_size, length_penalty=0.0)
        searches = [BeamSearch([], options, index) for index in range(len(room))]
        active = [index for index, count in enumerate(room) if count > 0]
        position = int(writing.state.position[writing.rows].max())
        pool = self.decoder.initial_state(len(room) * self.beam_size, position + max(room) + 1)
        pool.take(writing.state, writing.rows, torch.arange(len(room)) * self.beam_size, position)
        scores = scores[active]
        while active:
            total = scores.logsumexp(-1, keepdim=True)
            best, tokens = scores.topk(2 * self.beam_size)
            candidates, names = (best - total).double().cpu().numpy(), tokens.cpu().numpy()
            copies, at = [], 0
            for index in active:
                rows = slice(at, at + len(searches[index].hypotheses))
                at = rows.stop
                copies += searches[index].advance(
                    candidates[rows], names[rows], self.eot, room[index], self.decoder.capacity
                )
            active = [index for index in active if not searches[index].done]
            pool.copy(copies, position)
            owners = [index for index in active for _ in searches[index].hypotheses]
            if not owners:
                break
            branches = [branch for index in active for branch in searches[index].hypotheses]
            slots = torch.tensor([branch.slot for branch in branches], device=writing.rows.device)
            following = writing.select(owners, pool, slots)
            hidden, _ = self._feed(following, [branch.tokens[-1:] for branch in branches])
            scores, position = self._scores(hidden[:, 0]), position + 1
        return [search.best().tokens for search in searches]

    def _take_over(self, writing: Writing, found: list[list[int]], scores: Tensor, attention: Sequence[Tensor]) -> None:
        """Write the continuations that were found, and feed them to see what each token rests on."""
        for draft, hypothesis, tokens in zip(writing.drafts, writing.hypotheses, found, strict=True):
            hypothesis.complete = len(hypothesis.tokens) + len(tokens) < draft.limit
            for count in range(len(tokens)):
                if repeats([*draft.past, *hypothesis.tokens, *tokens[: count + 1]][-LOOP:]):
                    hypothesis.complete, hypothesis.looped = False, True
                    del tokens[count:]
                    break
        going = [index for index, tokens in enumerate(found) if tokens]
        if not going:
            return
        fed = [found[index][:-1] for index in going]
        scores, rest = scores[going, None], list[Tensor]()
        if any(fed):
            hidden, heads = self._feed(writing.select(going), fed)
            scores = torch.cat([scores, self._scores(hidden)], 1)
            rest = [
                self._where(writing, index, own[:, : len(one)])
                for index, own, one in zip(going, heads, fed, strict=True)
            ]
        log_sums = scores.logsumexp(-1).tolist()
        for n, index in enumerate(going):
            hypothesis = writing.hypotheses[index]
            hypothesis.finite = all(map(math.isfinite, log_sums[n][: len(found[index])]))
            for i, token in enumerate(found[index] if hypothesis.finite else []):
                weights = rest[n][i - 1] if i else attention[index]
                hypothesis.add(token, float(scores[n, i, token]), log_sums[n][i], weights)

    def _feed(self, writing: Writing, tokens: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, C) and watched attention (B, heads, T, frames) of tokens that are appended."""
        padded = torch.zeros(len(tokens), max(len(one) for one in tokens), dtype=torch.long)
        for row, one in zip(padded, tokens, strict=True):
            row[: len(one)] = torch.tensor(one)
        rows, device = writing.rows, writing.rows.device
        lengths = torch.tensor([len(one) for one in tokens], device=device)
        chunk = Chunk(padded.to(device), lengths, torch.zeros_like(rows, dtype=torch.bool))
        hidden, heads = self.decoder.attend(
            chunk, writing.state, rows, writing.memory, writing.memory_rows, self.watch, writing.adapters
        )
        assert heads is not None
        return hidden, heads

    def _where(self, writing: Writing, index: int, heads: Tensor, known: int = 0) -> Tensor:
        """Attention (T - known, frames) of the next T tokens of a stream but the first, from (heads, T, frames)."""
        return writing.attention[index](heads, known) if self.normalize else heads[:, known:].mean(0)

    def _scores(self, hidden: Tensor) -> Tensor:
        return self.decoder.logits(hidden).float() + self.bias


def loops(draft: Draft, hypothesis: StreamingHypothesis, token: int, attention: Tensor) -> bool:
    """Whether the next token, which attends to the audio so, would be that of a loop."""

    def frames() -> list[int]:
        return [*draft.said, *hypothesis.attended, int(attention.argmax())]

    return repeats([*draft.past, *hypothesis.tokens, token][-LOOP:], frames)


@dataclass
class Writing:
    """Streams that are being decoded: what the decoder wants to know of them, and what has been written."""

    drafts: list[Draft]
    state: DecoderState
    rows: Tensor
    memory: AudioMemory
    memory_rows: Tensor
    adapters: Adapters | None
    hypotheses: list[StreamingHypothesis] = field(default_factory=list)
    attention: list[TokenAttention] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hypotheses = self.hypotheses or [StreamingHypothesis() for _ in self.drafts]
        self.attention = self.attention or [TokenAttention(draft.frames) for draft in self.drafts]

    def select(self, index: list[int], state: DecoderState | None = None, rows: Tensor | None = None) -> Writing:
        """Some of the streams, perhaps several times, with their hypotheses in the slots ``rows`` of ``state``."""
        chosen = torch.tensor(index, device=self.rows.device)
        return Writing(
            [self.drafts[i] for i in index],
            self.state if state is None else state,
            self.rows[chosen] if rows is None else rows,
            self.memory,
            self.memory_rows[chosen],
            None if self.adapters is None else self.adapters.select(chosen),
            [self.hypotheses[i] for i in index],
            [self.attention[i] for i in index],
        )
