"""Public corpora of speech in GitHub repositories, each in a layout of its own, to manifests that recipes read.

    git clone https://github.com/rhasspy/dataset-voice-kathleen $LOQUENT_DATA/more/kathleen
    python -m loquent.recipes.data.corpora kathleen $LOQUENT_DATA/more/kathleen

writes ``manifest.jsonl`` into the folder. Its rows name the licence and the credit that weights trained on them have to
give; what may be measured with, but not trained on, is of the split "eval" only.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from loquent.recipes.data.held_out import spread
from loquent.recipes.data.manifest import ManifestError, Utterance, read_manifest, write_manifest
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import read_audio

LONGEST_S = 29.0  # longer recordings are left out
MOST_OF_A_WORD = 100  # recordings of the same word or phrase
RECORDINGS = (".wav", ".flac", ".ogg", ".mp3")


class Said(NamedTuple):
    """A recording, and what is said in it."""

    path: Path
    text: str
    speaker: str | None = None
    language: str = "en"
    accent: str | None = None


@dataclass(frozen=True)
class Corpus:
    """Where a corpus is, what may be done with it, and how its texts are found.

    repository: on GitHub, owner/name.
    licence:    of the recordings.
    credit:     what a model card has to name.
    trains:     whether weights that are trained on it may be given to others; else it is for measuring only.
    read:       its recordings, given its folder.
    """

    repository: str
    licence: str
    credit: str
    trains: bool
    read: Callable[[Path], Iterable[Said]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the manifest of a corpus."""
    listed = "\n".join(
        f"  {name:15} https://github.com/{one.repository} ({one.licence})" for name, one in CORPORA.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m loquent.recipes.data.corpora",
        description=f"{main.__doc__}\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", choices=CORPORA, metavar="CORPUS")
    parser.add_argument("folder", type=Path, help="a checkout of its repository")
    parser.add_argument("--without", metavar="MANIFEST", help="leave out recordings whose file names are in this one")
    given = parser.parse_args(arguments)
    try:
        rows = import_corpus(given.corpus, given.folder, given.without)
    except ManifestError as error:
        sys.exit(str(error))
    hours = sum(row.duration for row in rows) / 3600
    use = "training" if CORPORA[given.corpus].trains else "measuring only"
    print(f"{given.folder / 'manifest.jsonl'}: {len(rows)} recordings, {hours:.2f} h, for {use}")


def import_corpus(name: str, folder: Path, without: str | None = None) -> list[Utterance]:
    """Write ``manifest.jsonl`` into the folder of a corpus; recordings that are damaged or too long are left out.

    Args:
        name: one of `CORPORA`.
        folder: a checkout of its repository.
        without: manifest of recordings to leave out: those of the same file names, whatever their endings.

    Returns:
        The rows, in the order of their paths.

    Raises:
        ManifestError: the folder has no recordings where the corpus has them.
    """
    corpus = CORPORA[name]
    unwanted = {Path(row.path).stem for row in read_manifest(without)} if without else set()
    said = [one for one in corpus.read(folder) if one.path.stem not in unwanted]
    rows = []
    for one in tqdm(sorted(said), desc=name, unit="rec", file=sys.stderr, mininterval=1, leave=False):
        try:
            audio = read_audio(one.path)
        except AudioError:
            continue
        text = " ".join(one.text.split())
        if audio.warnings or not 0.2 <= audio.duration_s <= LONGEST_S or not text:
            continue
        extra = {"licence": corpus.licence, "credit": corpus.credit, "source": f"github:{corpus.repository}"}
        rows.append(
            Utterance(
                str(one.path),
                text,
                round(audio.duration_s, 3),
                id=f"{name}/{one.path.name}",
                language=one.language,
                speaker=None if one.speaker is None else f"{name}_{one.speaker}",
                split="train" if corpus.trains else "eval",
                extra=extra | ({"accent": one.accent} if one.accent else {}),
            )
        )
    if not rows:
        raise ManifestError(f"no recordings in {folder}; expected a checkout of https://github.com/{corpus.repository}")
    write_manifest(folder / "manifest.jsonl", rows)
    return rows


def _beside(folder: Path) -> Iterator[Said]:
    """Texts in files of the recordings' names."""
    for path in folder.glob("data/*.wav"):
        yield Said(path, path.with_suffix(".txt").read_text(encoding="utf-8"), "reader")


def _lj_speech(folder: Path) -> Iterator[Said]:
    for line in (folder / "LJSpeech-1.1" / "metadata.csv").read_text(encoding="utf-8").splitlines():
        name, _, text = line.split("|")
        path = folder / "LJSpeech-1.1" / "wavs" / f"{name}.wav"
        if path.is_file():
            yield Said(path, text, "reader")


def _words_by_file(folder: Path) -> Iterator[Said]:
    """English names of things, read one by one."""
    for path in folder.glob("en/*/*.ogg"):
        if path.parent.name in ("words", "colors", "geography"):
            yield Said(path, path.stem.replace("_", " "), path.parent.name)


def _words_by_folder(places: dict[str, str]) -> Callable[[Path], Iterator[Said]]:
    """Recordings of one phrase in each folder, no more than `MOST_OF_A_WORD` of it."""

    def read(folder: Path) -> Iterator[Said]:
        for place, phrase in places.items():
            paths = [path for path in (folder / place).glob("*") if path.suffix in RECORDINGS]
            for path in sorted(paths, key=lambda path: spread(path.name))[:MOST_OF_A_WORD]:
                yield Said(path, phrase)

    return read


def _common_voice(folder: Path) -> Iterator[Said]:
    for table in folder.glob("*/validated.tsv"):
        with table.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                path = table.parent / "clips" / row["path"]
                if path.is_file():
                    yield Said(path, row["sentence"], row["client_id"][:16], table.parent.name, row["accent"] or None)


def _accent_archive(folder: Path) -> Iterator[Said]:
    for path in folder.glob("recordings/*/*.wav"):
        yield Said(path, STELLA, path.stem, accent=path.parent.name)


def _uqm(folder: Path) -> Iterator[Said]:
    """Lines of the characters of a game, under headings such as ``#(NAME)  file.ogg``."""
    content = folder / "content"
    for entry in (content / "addons" / "3dovoice" / "3dovoice.rmp").read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"comm\.(\S+)\.dialogue = CONVERSATION:([^:]+):([^:]+):.*", entry)
        if not found:
            continue
        speaker, texts, recordings = found.groups()
        for part in re.split(r"^#", (content / texts).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, text = part.partition("\n")
            name = heading.partition(")")[2].strip()
            path = content / recordings / name
            if name and path.is_file():
                yield Said(path, text, speaker)


STELLA = (
    "Please call Stella. Ask her to bring these things with her from the store: Six spoons of fresh snow peas, five "
    "thick slabs of blue cheese, and maybe a snack for her brother Bob. We also need a small plastic snake and a big "
    "toy frog for the kids. She can scoop these things into three red bags, and we will go meet her Wednesday at the "
    "train station."
)
CORPORA = {
    "kathleen": Corpus("rhasspy/dataset-voice-kathleen", "CC0", "Kathleen's voice, by Mike Hansen", True, _beside),
    "lj_speech": Corpus(
        "PrernaSocity/lj_speech_dataset_part_1",
        "public domain",
        "LJ Speech, by Keith Ito and Linda Johnson",
        True,
        _lj_speech,
    ),
    "gcompris": Corpus("gcompris/GCompris-voices", "CC BY-SA 4.0", "voices of GCompris", True, _words_by_file),
    "wake_words": Corpus(
        "Picovoice/wake-word-benchmark",
        "Apache-2.0",
        "Picovoice's wake word benchmark",
        True,
        _words_by_folder(
            {f"audio/{word}": word for word in ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")}
        ),
    ),
    "precise": Corpus(
        "MycroftAI/Precise-Community-Data",
        "public domain",
        "Mycroft's community data for Precise",
        True,
        _words_by_folder(
            {
                "athena/en": "Athena",
                "amelia/en": "Amelia",
                "computer/en": "computer",
                "heycomputer/en": "hey computer",
                "heychatterbox/en-us": "hey Chatterbox",
            }
        ),
    ),
    "keywords": Corpus(
        "ShawnHymel/custom-speech-commands-dataset",
        "CC BY 4.0",
        "custom speech commands, by Shawn Hymel",
        True,
        _words_by_folder(
            {
                f"custom_keywords/{word}": word.replace("_", " ")
                for word in (
                    *("archie", "dracarys", "fenrir", "goodnight", "hadouken"),
                    *("hey_archie", "hey_fenrir", "how_are_you", "joke", "trick_or_treat"),
                )
            }
        ),
    ),
    "common_voice": Corpus(
        "omnilingo/rsample-100-cv-corpus-6.1-2020-12-11", "CC0", "Mozilla Common Voice 6.1", False, _common_voice
    ),
    "accent_archive": Corpus(
        "andrewwang247/accent-classifier", "CC BY-NC-SA 2.0", "Speech Accent Archive", False, _accent_archive
    ),
    "uqm": Corpus("davidben/uqm", "CC BY-NC-SA 2.5", "The Ur-Quan Masters", False, _uqm),
}


if __name__ == "__main__":
    main()
