"""The data of the commands model: orders to a coffee machine and digits, recorded and synthetic.

`prepare` writes 16 kHz FLAC and one manifest into a folder, once; training and evaluation read only that.

| kind | what | splits |
|---|---|---|
| coffee | picovoice_coffee: transcripts brought into line with the labels of the slots | train, valid, eval |
| digits | fsdd: one digit each; the speaker of eval is in no other split | train, valid, eval |
| strings | digits of fsdd in a row, each string of one speaker | train, valid, eval |
| speakers | strings of digits of speechocean762, AN4 and others; each speaker in one split | train, valid |
| words | single digits cut out of sentences and strings, many speakers | train |
| speech_commands | single digits of many speakers, each in one split | train, valid |
| voices | any of these digits, alone or in a row, each of another speaker | train |
| synthetic_coffee, synthetic_digits | hibari-tts and Flite, see `synthetic_voices` | train |
| kokoro_coffee, kokoro_digits | Kokoro: more voices and accents | train |
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from loquent.recipes.commands.an4 import read_an4
from loquent.recipes.commands.coffee_grammar import DIGITS, agrees, meant, random_digits, random_order, spoken
from loquent.recipes.commands.phone_numbers import read_phone_numbers
from loquent.recipes.commands.speech_commands import read_speech_commands
from loquent.recipes.data.augment import change_level, concatenate
from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance, read_manifest, select, write_manifest
from loquent.recipes.data.synthetic_voices import KOKORO, FliteVoice, HibariVoice, KokoroVoice, Voice
from loquent.recipes.whisper.word_times import WordTimes, WordTimesOptions
from loquent.speech.audio.files import write_audio
from loquent.speech.hub import cache_dir

LAYOUT = 7  # rises when the same options give other rows
MARGIN_S = 0.06  # of sound kept around a word that is cut out: when it begins and ends is known to about so much
LENGTH_S = (0.2, 1.1)  # of a digit that is cut out, with its margins
DIP_DB = 18.0  # below a digit's peak is the sound before and after it, or it is not cut out of a row of them
FRAME, HOP = 320, 80  # samples, of a level and between those where sound is cut
REPEATED = 0.25  # of the digits in strings for training: a transducer takes long to learn that two are not one
AUDIBLE = 0.025  # of full scale, the least peak of a recording: some of Speech Commands are silent
VALIDATION_SHARE = 0.1  # of the recordings of the training split, chosen by the hash of their names

_Word = tuple[str, float, float]  # begins and ends, in seconds


@dataclass(frozen=True)
class CommandsDataOptions:
    """What goes into the data."""

    data: str = "${LOQUENT_DATA}/speech"  # folder with picovoice_coffee.zip, fsdd.zip, speechocean762.zip and ``words``
    folder: str = ""  # where the prepared data goes; by default one for these options, in the user's cache folder
    words: tuple[str, ...] = (  # sets to cut digits out of
        "speechocean762",
        "librispeech_resemblyzer",
        "lj_text_selfrecorded",
        "game_fotaq_en",
        "game_bass_en",
    )
    an4: str | None = None  # folder with a copy of https://github.com/cmusphinx/an4; null leaves its speakers out
    phone_numbers: str | None = None  # likewise https://github.com/Sakshee5/alphanumeric-audio-dataset
    speech_commands: str | None = None  # likewise Speech Commands, or a part of it
    speech_commands_each: int = 600  # recordings of each digit, at most
    strings: int = 3000  # strings of digits for training; a tenth of it, half each, for validation and evaluation
    voices: int = 6000  # digits and strings of many speakers
    synthetic_coffee: int = 3000
    synthetic_digits: int = 1500
    flite_coffee: int = 800
    flite_digits: int = 1500
    kokoro_coffee: int = 600
    kokoro_digits: int = 1500
    kokoro: str = KOKORO  # of the hub, or a folder that is laid out so
    seed: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "int" and getattr(self, field.name) < 0:
                raise ValueError(f"{field.name}: expected a number of at least 0, got {getattr(self, field.name)}")

    @property
    def left_out(self) -> frozenset[str]:
        """Kinds of which there are none."""
        counts = {
            "strings": self.strings,
            "voices": self.voices,
            "speech_commands": self.speech_commands_each if self.speech_commands else 0,
            "synthetic_coffee": self.synthetic_coffee + self.flite_coffee,
            "synthetic_digits": self.synthetic_digits + self.flite_digits,
            "kokoro_coffee": self.kokoro_coffee,
            "kokoro_digits": self.kokoro_digits,
        }
        return frozenset(kind for kind, count in counts.items() if count == 0)


def prepare(options: CommandsDataOptions) -> list[Utterance]:
    """All rows, with ``kind`` in ``extra``; makes them unless the folder holds those of the same options.

    Raises:
        ManifestError: the recordings are not where ``data``, ``an4``, ``phone_numbers`` and ``speech_commands`` say.
        ModuleNotFoundError: hibari-tts is missing.
        FileNotFoundError: Flite or Kokoro is.
    """
    places = {name: getattr(options, name) and name for name in ("an4", "phone_numbers", "speech_commands")}
    values = asdict(options) | places | {"folder": "", "data": "", "kokoro": ""}
    wanted = json.dumps(values | {"layout": LAYOUT})
    default = cache_dir() / "commands" / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    folder = Path(options.folder or default).absolute()
    made = folder / "options.json"
    if not made.is_file() or made.read_text(encoding="utf-8") != wanted:
        made.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        rows = list(_made(options, folder))
        write_manifest(folder / "manifest.jsonl", rows)
        made.write_text(wanted, encoding="utf-8")
    return read_manifest(folder)


def _made(options: CommandsDataOptions, folder: Path) -> Iterator[Utterance]:
    an4 = read_an4(options.an4) if options.an4 else []  # first, as the voices: what is missing is missed at once
    numbers = read_phone_numbers(options.phone_numbers) if options.phone_numbers else []
    single = (
        read_speech_commands(options.speech_commands, options.speech_commands_each) if options.speech_commands else []
    )
    voices = list(_synthetic_voices(options))
    data, rng = Path(options.data), random.Random(options.seed)
    yield from _recorded(_coffee(read_manifest(data / "picovoice_coffee.zip"), options.seed), folder / "coffee")
    rows = [_kind(row, "digits", _split(row)) for row in read_manifest(data / "fsdd.zip")]
    digits = list(_recorded(((row, row.samples()) for row in rows), folder / "digits"))
    yield from digits
    counts = {"train": options.strings, "valid": options.strings // 20, "eval": options.strings // 20}
    yield from _recorded(_strings(digits, counts, rng), folder / "strings")
    speakers = _speakers([*read_manifest(data / "speechocean762.zip"), *an4, *numbers])
    yield from _recorded(speakers, folder / "speakers")
    sets = [read_manifest(data / f"{name}.zip", split="train") for name in options.words]
    sets += [select(rows, split="train") for rows in (an4, numbers)]
    words = list(_recorded(_cut(sets), folder / "words"))
    yield from words
    others = list(_recorded(_audible(single), folder / "speech_commands"))
    yield from others
    said = [row for row in [*digits, *words, *others] if row.split == "train" and row.text in DIGITS]
    yield from _recorded(_voices(said, options.voices, random.Random(options.seed)), folder / "voices")
    for kind, random_text, speaker, count in voices:
        rng = random.Random(f"{options.seed} {kind} {speaker.source}")
        texts = [random_text(rng) for _ in range(count)]
        yield from _recorded(_synthetic(texts, kind, speaker, rng), folder / f"{kind}_{speaker.source}")


def _recorded(rows: Iterable[tuple[Utterance, np.ndarray]], folder: Path) -> Iterator[Utterance]:
    """Write the recordings of one kind, and say where they are."""
    folder.mkdir(exist_ok=True)
    for number, (row, samples) in enumerate(tqdm(rows, desc=folder.name, unit="file", leave=False)):
        path = folder / f"{number:05d}.flac"
        write_audio(path, samples, SAMPLE_RATE)
        yield replace(row, path=str(path), archive=None, duration=round(len(samples) / SAMPLE_RATE, 4))


def _kind(row: Utterance, kind: str, split: str) -> Utterance:
    kept = {key: row.extra[key] for key in ("source", "licence") if key in row.extra}
    return replace(row, split=split, extra={"kind": kind, "original": row.id, **kept})


def _split(row: Utterance) -> str:
    """The row's own split, with a share of the training rows set aside for the choice of the best model."""
    if row.split != "train":
        return "eval"
    digest = hashlib.sha256(row.id.encode()).digest()
    return "valid" if int.from_bytes(digest[:4], "big") < VALIDATION_SHARE * 2**32 else "train"


def _coffee(rows: Iterable[Utterance], seed: int) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Orders. Evaluation keeps whole recordings, of rows whose transcript agrees with the labels; training cuts most of
    the seconds of silence around the words."""
    rng = np.random.default_rng(seed)
    for row in rows:
        if row.split == "eval" and row.extra["slot_match"] != 1:
            continue
        certain = row.extra["slot_match"] == 1 and agrees(row.text)
        text = spoken(row.text) if certain else meant(row.text, row.extra["label"]["slots"])
        samples, split = row.samples(), _split(row)
        if split == "train":
            samples = trim(samples, *rng.uniform(0.1, 0.6, 2))
        yield replace(_kind(row, "coffee", split), text=text), samples


def trim(samples: np.ndarray, before_s: float, after_s: float) -> np.ndarray:
    """Cut silence, but keep so much of it before and after the sound.

    Sound is what is within 35 dB of the loudest 20 ms and 8 dB above the quietest tenth of the recording.
    """
    levels = _levels(samples, FRAME)
    if len(levels) == 0:
        return samples
    loud = np.flatnonzero(levels > max(levels.max() - 35, min(np.quantile(levels, 0.1) + 8, levels.max() - 10)))
    first = int(loud[0]) * FRAME - round(before_s * SAMPLE_RATE)
    last = (int(loud[-1]) + 1) * FRAME + round(after_s * SAMPLE_RATE)
    return samples[max(first, 0) : last]


def _levels(samples: np.ndarray, hop: int) -> np.ndarray:
    """(N,) samples to powers of 20 ms each, one every ``hop`` samples, in dB relative to full scale."""
    if len(samples) < FRAME:
        return np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::hop].astype(np.float64)
    return 10 * np.log10((frames**2).mean(axis=1) + 1e-10)


def _strings(
    digits: list[Utterance], counts: dict[str, int], rng: random.Random
) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Two to six digits of one speaker in a row, out of the recordings of the split."""
    clips: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for row in digits:
        clips[str(row.split)][str(row.speaker)].append(row)
    samples = {row.id: trim(row.samples(), 0.03, 0.05) for row in digits}
    for split, count in counts.items():
        for number in range(count):
            speaker = rng.choice(sorted(clips[split]))
            chosen = [rng.choice(clips[split][speaker]) for _ in range(rng.randint(2, 6))]
            again = random.Random(number)
            for at in range(1, len(chosen)):
                if split == "train" and again.random() < REPEATED:
                    same = [one for one in clips[split][speaker] if one.text == chosen[at - 1].text]
                    chosen[at] = again.choice(same)
            gaps = [rng.uniform(0.0, 0.3) for _ in chosen[1:]]
            text = " ".join(one.text for one in chosen)
            row = Utterance("", text, 0, id="", speaker=speaker, split=split, extra={"kind": "strings"})
            yield row, concatenate([samples[one.id] for one in chosen], gaps)


def _voices(said: list[Utterance], count: int, rng: random.Random) -> Iterator[tuple[Utterance, np.ndarray]]:
    """One to six digits in a row, each as often as the others and by any speaker: with the four speakers of strings
    alone, a model learns what is particular to them."""
    clips: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for row in said:
        clips[row.text][str(row.speaker)].append(row)
    samples = {row.id: trim(row.samples(), 0.03, 0.05) for row in said}
    for _ in range(count):
        digits: list[str] = []
        for _ in range(rng.randint(1, 6)):
            digits.append(digits[-1] if digits and rng.random() < REPEATED else rng.choice(sorted(clips)))
        chosen = [rng.choice(clips[digit][rng.choice(sorted(clips[digit]))]) for digit in digits]
        gaps = [rng.uniform(0.0, 0.3) for _ in chosen[1:]]
        level = [_at_level(samples[one.id], rng.uniform(-28, -20)) for one in chosen]
        row = Utterance("", " ".join(digits), 0, id="", split="train", extra={"kind": "voices"})
        yield row, concatenate(level, gaps)


def _at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Amplify to so much power, relative to full scale, but never beyond that."""
    return change_level(samples, level_db - 10 * np.log10(float(np.square(samples).mean()) + 1e-10))


def _speakers(rows: Iterable[Utterance]) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Recordings in which nothing but digits is said; those that a set keeps for evaluation are validation."""
    for row in rows:
        text = spoken(row.text)
        if text and set(text.split()) <= set(DIGITS):
            kind = _kind(row, "speakers", "train" if row.split == "train" else "valid")
            yield replace(kind, text=text), row.samples()


def _audible(rows: Iterable[Utterance]) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Single digits; those that a set keeps for evaluation are validation."""
    for row in rows:
        samples = row.samples()
        if np.abs(samples).max(initial=0) >= AUDIBLE:
            yield _kind(row, "speech_commands", "train" if row.split == "train" else "valid"), samples


def _cut(sets: Iterable[list[Utterance]]) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Digits out of sentences and strings, where an aligner finds them: each alone is a word, several in a row are a
    string too, unless they are all that is said, which is one already."""
    times = WordTimes(WordTimesOptions())
    for sentences in sets:
        said = [(row, set(spoken(row.text).split())) for row in sentences]
        rows = [row for row, words in said if words & set(DIGITS)]
        times.prepare(rows)
        known = times.read(rows, pseudo=False)
        for row in rows:
            timed = known.get(row.id)
            if timed is None or not timed.plausible(row.duration, times.options):
                continue
            samples = row.samples()
            words = [(spoken(word).strip(), start, end) for word, start, end in timed.spoken]
            for kind, text, first, last in _clips(samples, words):
                name = f"{row.id}/{first / SAMPLE_RATE:.2f}-{last / SAMPLE_RATE:.2f}"
                yield replace(_kind(row, kind, "train"), text=text, id=name), samples[first:last]


def _clips(samples: np.ndarray, words: list[_Word]) -> Iterator[tuple[str, str, int, int]]:
    """What there is to be cut out: kind, text, first sample and the one after the last.

    Digits in a row are cut apart where the sound is weakest between them, if it is weak there: what a cut leaves of the
    neighbour is heard as one more digit.
    """
    levels = _levels(samples, HOP)
    if not len(levels):
        return

    def at(second: float) -> int:
        return min(max(round((second * SAMPLE_RATE - FRAME / 2) / HOP), 0), len(levels) - 1)

    for digits in _runs(words):
        cuts, weakest = [at(digits[0][1] - MARGIN_S)], [-np.inf]
        for (_, _, end), (_, start, _) in itertools.pairwise(digits):
            high = at(max(start, end) + MARGIN_S) + 1
            low = min(max(at(min(start, end) - MARGIN_S), cuts[-1]), high - 1)
            cuts.append(low + int(np.argmin(levels[low:high])))
            weakest.append(levels[cuts[-1]])
        cuts.append(at(digits[-1][2] + MARGIN_S))
        weakest.append(-np.inf)
        places = [cut * HOP + FRAME // 2 for cut in cuts]
        likely = all(0.1 <= end - start <= 1.0 for _, start, end in digits)
        if likely and len(digits) > 1 and digits != words:  # all that is said is a string already
            yield "speakers", " ".join(word for word, _, _ in digits), places[0], places[-1]
        for number, (word, _, _) in enumerate(digits):
            first, last = cuts[number : number + 2]
            apart = max(weakest[number : number + 2]) <= levels[first : last + 1].max() - DIP_DB
            if apart and LENGTH_S[0] <= (last - first) * HOP / SAMPLE_RATE <= LENGTH_S[1]:
                yield "words", word, places[number], places[number + 1]


def _runs(words: list[_Word]) -> Iterator[list[_Word]]:
    """Digits that follow each other."""
    for is_digit, run in itertools.groupby(words, lambda word: word[0] in DIGITS):
        if is_digit:
            yield list(run)


def _synthetic_voices(
    options: CommandsDataOptions,
) -> Iterator[tuple[str, Callable[[random.Random], str], Voice, int]]:
    """Kinds of sentences, what they say, who speaks them, and how many."""
    kokoro = partial(KokoroVoice, options.kokoro)
    makers: tuple[tuple[str, Callable[[random.Random], str], Callable[[], Voice], int], ...] = (
        ("synthetic_coffee", random_order, HibariVoice, options.synthetic_coffee),
        ("synthetic_coffee", random_order, FliteVoice, options.flite_coffee),
        ("kokoro_coffee", random_order, kokoro, options.kokoro_coffee),
        ("synthetic_digits", random_digits, HibariVoice, options.synthetic_digits),
        ("synthetic_digits", random_digits, FliteVoice, options.flite_digits),
        ("kokoro_digits", random_digits, kokoro, options.kokoro_digits),
    )
    for kind, random_text, make, count in makers:
        if count:
            yield kind, random_text, make(), count


def _synthetic(texts: list[str], kind: str, voice: Voice, rng: random.Random) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Speak sentences."""
    for text in texts:
        separator = rng.choice((" ", ", ")) if kind.endswith("digits") else " "
        samples = trim(voice(text.replace(" ", separator), rng), 0.1, 0.15)
        extra = {"kind": kind, "source": voice.source, "licence": voice.licence}
        yield Utterance("", text, 0, id="", speaker=voice.source, split="train", extra=extra), samples
