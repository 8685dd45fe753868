"""Gives a language model the pieces that stand in the entries of streams, and says what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loquent.speech.lm.decoder import KeyValueState
from loquent.speech.lm.entries import Entries, Watched, run
from loquent.speech.lm.language_model import LanguageModel
from loquent.translate.llm.codec import LanguageModelCodec
from loquent.translate.llm.settings import LanguageModelSettings
from loquent.translate.llm.state import SOURCE, TARGET, Entry, LanguageModelState, Progress, orders
from loquent.translate.search.stepper import Scores


@dataclass(frozen=True)
class Place:
    """Some streams of a pool: where their steps go, and the progress of each, which changes."""

    state: LanguageModelState
    rows: Tensor
    progress: list[Progress]

    def select(self, index: Sequence[int]) -> Place:
        """Some of them."""
        chosen = torch.tensor(index, dtype=torch.long, device=self.rows.device)
        return Place(self.state, self.rows[chosen], [self.progress[at] for at in index])

    def copied(self, index: Sequence[int]) -> Place:
        """Copies of some of them, in a pool of their own; one may come more than once."""
        chosen = self.select(index)
        state = self.state.gather(chosen.rows)
        return Place(state, torch.arange(len(index), device=self.rows.device), chosen.progress)


class Decoding:
    """A language model with its layout.

    Args:
        model: in evaluation mode.
        settings: how it is asked.
        codec: of the target.

    Attributes:
        joint: whether one order holds for source and target, so that the source sees the target before it.
        moves: whether the target stands behind the source, wherever that ends.
        opening: pieces before the target.
        end: the piece that ends what is written, for all that do.
    """

    def __init__(self, model: LanguageModel, settings: LanguageModelSettings, codec: LanguageModelCodec) -> None:
        self.model, self.settings, config = model, settings, model.model.config
        self.joint, self.moves = settings.layout == "interleaved", settings.layout == "prompt"
        if self.joint:
            self.opening: list[int] = []
            self.end_of_read, self.end = codec.piece(settings.end_of_read), codec.piece(settings.end_of_write)
            ends = {self.end}
        else:
            self.opening, self.end_of_read = codec.marks(settings.between), -1
            breaks = [piece for piece, breaks in enumerate(codec.breaks_line) if breaks]
            ends = {*(codec.piece(name) for name in settings.end), *breaks}
            if not ends:
                raise ValueError("end: the model has no piece that ends a translation; name one")
            self.end = min(ends)
        device = model.model.norm.weight.device
        self._ends = torch.tensor(sorted(ends), device=device)
        barred = [special or breaks for special, breaks in zip(codec.special, codec.breaks_line, strict=True)]
        self._barred = torch.tensor(barred, device=device)
        self.inner = torch.tensor(codec.inner, device=device)
        self._barred[self._ends] = True
        if self.joint:
            self._barred[self.end_of_read] = True
        self._instructions = {name: codec.marks(settings.instruction(name)) for name in ("low", "medium", "high")}
        self._given: dict[str, list[tuple[Tensor, Tensor]]] = {}
        longest = max(map(len, self._instructions.values()))
        self.entry = Entry(longest, settings.source_capacity, settings.target_capacity)
        if not longest:
            raise ValueError("before: there is no piece before the source; begin with the name of the language")
        self.heads = _by_layer(settings.heads or _middle_third(config.layers, config.heads))
        if any(layer >= config.layers or max(some) >= config.heads for layer, some in self.heads.items()):
            raise ValueError(f"heads: the model has {config.layers} layers of {config.heads} heads each")

    def initial_state(self, slots: int) -> LanguageModelState:
        """Streams that have not begun."""
        config, weight, entry = self.model.model.config, self.model.model.norm.weight, self.entry
        shape = slots, config.kv_heads, entry.total, config.head_dim
        table = torch.zeros(slots, entry.total, dtype=torch.long, device=weight.device)
        return LanguageModelState(
            tuple(KeyValueState(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in range(config.layers)),
            table,
            table.clone(),
            torch.zeros(slots, len(Progress._fields), dtype=torch.long, device=weight.device),
            config.vocabulary,
            *entry,
        )

    def instruct(self, place: Place, latencies: Sequence[str | None]) -> None:
        """Begin the streams that have not begun: their keys and values of the instruction are computed once and kept.

        The latency of a stream is the one that was asked for then.
        """
        for at, (slot, latency) in enumerate(zip(place.rows.tolist(), latencies, strict=True)):
            if not place.progress[at].prefix:
                name, pieces = latency or self.settings.latency, self.instruction_pieces(latency)
                if name not in self._given:
                    self._given[name] = self._instruction(pieces)
                count = len(pieces)
                for cache, (k, v) in zip(place.state.layers, self._given[name], strict=True):
                    cache.k[slot, :, :count], cache.v[slot, :, :count] = k, v
                place.progress[at] = place.progress[at]._replace(prefix=count)

    def instruction_pieces(self, latency: str | None) -> list[int]:
        """What stands before the source."""
        return self._instructions[latency or self.settings.latency]

    def catch_up(self, place: Place) -> tuple[Tensor, Tensor]:
        """Give the model all that was read and written and not given; the newest piece at least, perhaps once more.

        Returns:
            Hidden steps (B, dim) of the newest pieces, and the source pieces (B,) int64 that they attend to most.
        """
        for at, one in enumerate(place.progress):
            if not self.joint:
                one = one._replace(target_run=min(one.target_run, one.target - 1))
            elif one.source_run == one.source and one.target_run == one.target:
                newest = "source_run" if one.newest == SOURCE else "target_run"
                one = one._replace(**{newest: getattr(one, newest) - 1})
            place.progress[at] = one
        entries = [self._pending(place, at) for at in range(len(place.progress))]
        found = self._give(place, entries, [0] * len(entries))
        for at, one in enumerate(place.progress):
            place.progress[at] = one._replace(source_run=one.source, target_run=one.target)
        place.state.move_on(place.rows, place.progress)
        return found

    def go_on(self, place: Place, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Give the model a piece (B,) int64 behind what each stream has drafted; returns what `catch_up` does."""
        state, first = place.state, self.entry.first(TARGET)
        behind = [one.target + one.drafted for one in place.progress]
        kept = torch.tensor(behind, device=pieces.device) + first
        places = [self.place_of(one, at) for one, at in zip(place.progress, behind, strict=True)]
        state.tokens[place.rows, kept] = pieces
        state.places[place.rows, kept] = torch.tensor(places, device=pieces.device)
        found = self._give(place, [[first + at] for at in behind], [one.drafted for one in place.progress])
        place.progress[:] = [one._replace(drafted=one.drafted + 1) for one in place.progress]
        state.move_on(place.rows, place.progress)
        return found

    def place_of(self, one: Progress, at: int) -> int:
        """Position of the entry ``at`` of a stream's target, the newest one or one behind it."""
        if self.joint:
            return one.clock + at - one.target
        return at + (one.clock if self.moves else self.settings.offset + one.lost)

    def scores(self, hidden: Tensor, attended: Tensor) -> Scores:
        """Of pieces of text and of the end; all pieces that end are one, the likeliest."""
        logits = self.model.scores(hidden).float()
        end = logits[:, self._ends].amax(-1)
        logits = logits.masked_fill(self._barred, -torch.inf)
        logits[:, self.end] = end
        return Scores(logits, attended)

    # ----------------------------------------------------------------------------------------------------------------

    def _pending(self, place: Place, at: int) -> list[int]:
        """Entries that the model has not been given, in the order of their positions."""
        one, entry = place.progress[at], self.entry
        source = [entry.first(SOURCE) + number for number in range(one.source_run, one.source)]
        target = [entry.first(TARGET) + number for number in range(one.target_run, one.target)]
        if not (self.joint and source and target):
            return source + target
        both = source + target
        places = place.state.places[place.rows[at], torch.tensor(both, device=place.rows.device)].tolist()
        return [number for _, number in sorted(zip(places, both, strict=True))]

    def _give(self, place: Place, entries: Sequence[Sequence[int]], drafted: list[int]) -> tuple[Tensor, Tensor]:
        """Run the pieces in some entries of each stream, at least one.

        Args:
            drafted: entries behind the target that are looked at.
        """
        state, rows, entry, progress = place.state, place.rows, self.entry, place.progress
        device, most = rows.device, max(map(len, entries))
        kept = pad_sequence([torch.tensor(one) for one in entries], batch_first=True, padding_value=entry.total - 1)
        target = kept >= entry.first(TARGET)
        columns = entry.columns(entry.source, entry.target)
        if device.type == "cpu":  # elsewhere the shapes stay what they are
            ahead = max(int(kept[kept < entry.total - 1].max()) + 1 - entry.first(TARGET), 0)
            held = max(one.target_run + more for one, more in zip(progress, drafted, strict=True))
            columns = entry.columns(max(one.source for one in progress), max(held, ahead))
        given = torch.full((len(entries), entry.total), 2**62)
        given.scatter_(1, kept, torch.arange(most).expand_as(kept))
        given[:, -1] = 2**62
        order = torch.from_numpy(orders(entry, progress, drafted, columns))
        order = order.minimum(torch.cat([given[:, part] for part in columns], dim=1))
        seen = order[:, None] <= torch.arange(most)[:, None]
        source_end = columns[0].stop
        if not self.joint:
            seen &= target[:, :, None] | (torch.arange(seen.shape[2]) < source_end)
        length = torch.tensor([len(one) for one in entries])
        seen |= (torch.arange(most) >= length[:, None])[:, :, None]  # what nobody reads must not be NaN
        shift = torch.tensor([one.prefix for one in progress])[:, None].expand_as(kept)
        if not (self.joint or self.moves):
            shift = torch.where(target, 0, shift)
        kept, seen, shift = (tensor.to(device) for tensor in (kept, seen, shift))
        table = rows[:, None], kept
        steps = state.places[table] + shift
        x = self.model.model.embed_tokens(state.tokens[table])
        last = (length - 1).to(device)[:, None]
        watched = Watched(self.heads, last)
        hidden, weights = run(self.model.model, x, state.layers, Entries(steps, rows, kept, columns, seen), watched)
        assert weights is not None
        at = torch.arange(len(rows), device=device)
        return hidden[at, last[:, 0]], self._attended(weights[:, :, 0].mean(1), progress)

    def _attended(self, weights: Tensor, progress: Sequence[Progress]) -> Tensor:
        """The number of the source piece with the largest weight (B, N); 0 where there is none."""
        first = self.entry.first(SOURCE)
        held = torch.tensor([one.source for one in progress], device=weights.device)[:, None]
        gone = torch.tensor([one.gone for one in progress], device=weights.device)
        source = weights[:, first : first + self.entry.source]
        beyond = torch.arange(source.shape[1], device=weights.device) >= held
        return source.masked_fill(beyond, -1).argmax(1) + gone

    def _instruction(self, pieces: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (kv_heads, P, D) of each layer."""
        state, count = self.initial_state(1), len(pieces)
        zero = torch.zeros(1, dtype=torch.long, device=state.tokens.device)
        steps = torch.arange(count, device=zero.device)[None]
        seen = (steps[0][:, None] >= steps)[None]
        x = self.model.model.embed_tokens(torch.tensor([pieces], device=zero.device))
        run(self.model.model, x, state.layers, Entries(steps, zero, steps, (slice(0, count),), seen))
        return [(cache.k[0, :, :count].clone(), cache.v[0, :, :count].clone()) for cache in state.layers]


def _middle_third(layers: int, heads: int) -> list[tuple[int, int]]:
    chosen = range(layers // 3, max(2 * layers // 3, layers // 3 + 1))
    return [(layer, head) for layer in chosen for head in range(heads)]


def _by_layer(pairs: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    layers: dict[int, list[int]] = {}
    for layer, head in sorted(pairs):
        layers.setdefault(layer, []).append(head)
    return layers
