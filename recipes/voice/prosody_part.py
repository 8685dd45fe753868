"""Training of the prosody: durations, pitch and energy of words whose context is cut as the runtime cuts it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.recipes.voice.corpus import Corpus, padded
from loquent.recipes.voice.data import Utterance
from loquent.tts.flow_voice.prosody import Frames, ProsodyNet, frame_durations, hertz, places, scaled_pitch

BEFORE, AHEAD = 8, 2  # words around the one that is spoken; see `PhoneWindow`
COUNTED = 3  # words of a window, the last that have their words ahead, that the loss counts


@dataclass(frozen=True)
class Example:
    """A part of an utterance, and which of its phones count: (P,) bool."""

    utterance: Utterance
    begin: int
    end: int
    counted: Tensor


class ProsodyPart:
    """Windows of words out of sentences, with what the teacher makes of the whole sentence.

    A window is 8 words, the word that is spoken, and 2 ahead; so is the context at run time. Some of the examples are
    whole sentences.

    Args:
        net: what is trained. corpus, valid: utterances.
        space: id of the phone between words.
        sentences: share of whole sentences.
    """

    judged_by = "phone_frames"

    def __init__(
        self, net: ProsodyNet, corpus: Corpus, valid: Corpus, *, space: int, sentences: float, seed: int
    ) -> None:
        self.net, self.corpus, self.valid = net, corpus, valid
        self.space, self.sentences, self.seed = space, sentences, seed
        self.module: nn.Module = _Loss(net)

    def lengths(self) -> list[float]:
        """Phones."""
        return [float(count) for count in self.corpus.phone_counts]

    def collate(self, items: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """A window of each utterance."""
        examples = []
        for item in items:
            utterance, rng = self.corpus[item], random.Random(f"{self.seed} {epoch} {item}")
            words = word_starts(utterance.phones, self.space)
            if rng.random() < self.sentences:
                examples.append(whole(utterance))
            else:
                examples.append(window(utterance, words, rng.randrange(len(words))))
        return batch_of(examples, self.net.config.reach)

    def evaluate(self) -> dict[str, float]:
        """Errors of words whose context is that of the runtime, and (``sentence/``) the whole sentence.

        duration_error: mean absolute error of a word's duration, share of the mean. phone_frames: of a phone's, in
        frames. pitch_semitones, energy: mean absolute errors. voicing: share of half frames that are wrong.
        """
        figures: dict[str, float] = {}
        for name, several in (("", False), ("sentence/", True)):
            errors: dict[str, list[float]] = defaultdict(list)
            for index in range(len(self.valid)):
                utterance = self.valid[index]
                if utterance.tempo != 1:
                    continue
                words = word_starts(utterance.phones, self.space)
                for word in range(len(words)):
                    example = whole(utterance) if several else window(utterance, words, word)
                    _measure(self.net, example, _span(words, word, len(utterance.phones)), errors)
            words_ms, wrong_ms = sum(errors["word"]), sum(errors["word_error"])
            figures[f"{name}duration_error"] = wrong_ms / words_ms
            for one in ("phone_frames", "pitch_semitones", "energy", "voicing"):
                figures[f"{name}{one}"] = sum(errors[one]) / max(len(errors[one]), 1)
        return figures


def word_starts(phones: Tensor, space: int) -> list[int]:
    """The place of each word's first phone; the silence at the start is no word."""
    spaces = (phones == space).nonzero().flatten().tolist()
    return [1, *(at + 1 for at in spaces if at + 2 < len(phones))]


def whole(utterance: Utterance) -> Example:
    """All phones count."""
    count = len(utterance.phones)
    return Example(utterance, 0, count, torch.full((count,), utterance.tempo == 1))


def window(utterance: Utterance, words: Sequence[int], word: int) -> Example:
    """What is known when a word is spoken; there is no space behind the last word that is known.

    Args:
        words: where they begin. word: number of the one that is spoken.
    """
    last = min(word + AHEAD, len(words) - 1)
    closes = last == len(words) - 1
    begin = 0 if word <= BEFORE else words[word - BEFORE]
    end = len(utterance.phones) if closes else words[last + 1] - 1
    place = torch.arange(begin, end)
    first = max(word - COUNTED + 1, 0)
    start = 0 if first == 0 else words[first] - 1
    stop = len(utterance.phones) if word + 1 >= len(words) else words[word + 1]
    if closes:
        stop = len(utterance.phones)
    counted = (place >= start) & (place < stop)
    return Example(utterance, begin, end, counted & (utterance.tempo == 1))


def _span(words: Sequence[int], word: int, count: int) -> tuple[int, int]:
    """The phones of a word, the space behind it included."""
    return words[word], (words[word + 1] if word + 1 < len(words) else count)


def batch_of(examples: Sequence[Example], reach: int) -> dict[str, Tensor]:
    """Inputs and targets; frames are those of the phones that count, and ``reach`` around them."""
    phones, present = padded([one.utterance.phones[one.begin : one.end] for one in examples])
    durations, _ = padded([one.utterance.durations[one.begin : one.end] for one in examples])
    counted, _ = padded([one.counted for one in examples])
    phone: list[Tensor] = []
    place: list[Tensor] = []
    curves: list[Tensor] = []
    frame_counted: list[Tensor] = []
    for one in examples:
        length = one.utterance.durations[one.begin : one.end]
        at, where = places(length)
        start = int(one.utterance.durations[: one.begin].sum())
        targets = torch.cat(
            [curve[2 * start : 2 * (start + len(at))].unflatten(0, (-1, 2)) for curve in _curves(one.utterance)], dim=1
        )
        counts = one.counted[at]
        kept = F.max_pool1d(counts.float()[None], 2 * reach + 1, 1, reach)[0].bool()
        if not kept.any():
            kept[0] = True
        for parts, value in ((phone, at), (place, where), (curves, targets), (frame_counted, counts)):
            parts.append(value[kept])
    frame_phone, frame_present = padded(phone)
    return {
        "phones": phones,
        "present": present,
        "mixture": torch.stack([one.utterance.mixture for one in examples]),
        "durations": durations,
        "counted": counted,
        "frame_phone": frame_phone,
        "frame_present": frame_present,
        "place": padded(place)[0],
        "curves": padded(curves)[0],
        "frame_counted": padded(frame_counted)[0],
    }


def _curves(utterance: Utterance) -> tuple[Tensor, Tensor, Tensor]:
    return scaled_pitch(utterance.pitch), (utterance.pitch > 0).float(), utterance.energy


class _Loss(nn.Module):
    """Mean absolute errors of log durations, pitch and energy; cross entropy of voicing."""

    def __init__(self, net: ProsodyNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `batch_of`."""
        x, log_durations = self.net(batch["phones"], batch["mixture"], batch["present"])
        counted = batch["counted"].float()
        frames = Frames(batch["frame_phone"], batch["place"], batch["frame_present"])
        wanted = batch["durations"].clamp(min=1).float().log()
        duration = ((log_durations - wanted).abs() * counted).sum() / counted.sum().clamp(min=1)
        pitch, voicing, energy = self.net.curves(x, frames).split(2, dim=2)
        pitch_wanted, voiced, energy_wanted = batch["curves"].split(2, dim=2)
        each = batch["frame_counted"].float()[:, :, None].expand_as(pitch)
        count = each.sum().clamp(min=1)
        pitch_error = ((pitch - pitch_wanted).abs() * each * voiced).sum() / (each * voiced).sum().clamp(min=1)
        voicing_error = (F.binary_cross_entropy_with_logits(voicing, voiced, reduction="none") * each).sum() / count
        energy_error = ((energy - energy_wanted).abs() * each).sum() / count
        loss = 2 * duration + pitch_error + voicing_error + energy_error
        figures = {"duration": duration, "pitch": pitch_error, "voicing": voicing_error, "energy": energy_error}
        return loss, {name: value.detach() for name, value in figures.items()}


def _measure(net: ProsodyNet, example: Example, span: tuple[int, int], errors: dict[str, list[float]]) -> None:
    """Add the errors of the phones from … to of an utterance; pitch and energy are predicted for true durations."""
    utterance = example.utterance
    device = next(net.parameters()).device
    first, last = span[0] - example.begin, span[1] - example.begin
    batch = batch_of([example], net.config.reach)
    x, log_durations = net(batch["phones"].to(device), batch["mixture"].to(device))
    durations = utterance.durations[span[0] : span[1]]
    predicted = frame_durations(log_durations[0, first:last].cpu(), 1.0)
    errors["word"].append(float(durations.sum()))
    errors["word_error"].append(float((predicted.sum() - durations.sum()).abs()))
    errors["phone_frames"] += (predicted - durations).abs().float().tolist()
    frames = Frames(*(batch[name].to(device) for name in ("frame_phone", "place", "frame_present")))
    pitch, voicing, energy = (part.cpu() for part in net.curves(x, frames)[0].split(2, dim=1))
    inside = (batch["frame_phone"][0] >= first) & (batch["frame_phone"][0] < last)
    pitch_wanted, voiced, energy_wanted = batch["curves"][0].split(2, dim=1)
    both = (voiced > 0) & (voicing > 0) & inside[:, None]
    if both.any():
        ratio = hertz(pitch, voicing)[both] / hertz(pitch_wanted, voiced)[both]
        errors["pitch_semitones"] += (12 * ratio.log2()).abs().tolist()
    errors["voicing"] += ((voicing > 0) != (voiced > 0))[inside].float().flatten().tolist()
    errors["energy"] += (energy - energy_wanted).abs()[inside].flatten().tolist()
