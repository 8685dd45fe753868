"""Reads Whisper's vocabulary from the files that models come with, and derives merges that the files lack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from loquent.speech.json_files import read_json, read_json_object

MOST_TOKENS = 2**20  # of a vocabulary; Whisper has 51866
LONGEST_TOKEN = 512  # bytes; Whisper's longest has 128


@dataclass(frozen=True)
class Vocabulary:
    """What the files of a tokenizer say.

    ids: token -> id, as many ids as tokens.
    merges: byte-pair merges, most frequent first; some or all may be missing.
    special: tokens that the files call special, so that they are no text; not all files say so.
    """

    ids: dict[str, int]
    merges: list[tuple[str, str]]
    special: frozenset[str] = frozenset()


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a model folder, or of a `tokenizer.json`.

    Raises:
        FileNotFoundError: no file of a known name holds a vocabulary.
        ValueError: a file is not what its name promises.
    """
    folder = path if path.is_dir() else path.parent
    description = folder / "tokenizer.json" if path.is_dir() else path
    if description.is_file():
        return _checked(_from_tokenizer_json(description), description)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _checked(_from_vocabulary_and_merges(folder), folder / "vocab.json")
    for name in ("vocabulary.json", "vocabulary.txt"):
        if (folder / name).is_file():
            return _checked(Vocabulary(_from_token_list(folder / name), []), folder / name)
    raise FileNotFoundError(
        f"{folder} has no tokenizer: expected tokenizer.json, vocab.json with merges.txt, or vocabulary.json or .txt"
    )


def complete_merges(text_tokens: dict[str, int], merges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The merges, with one for each text token that none of them makes, in the order of the tokens' ids.

    Files in use for the multilingual models lack the very first merge (space and t): without it no text encodes to
    " the", " to" or 1167 other tokens, and prompts are not written as in training. CTranslate2's lists of tokens have
    no merges at all. Both follow from the ids, which are the order of the merges.

    Raises:
        ValueError: a merge makes no text token, or a text token cannot come from merges.
    """
    made = {left + right for left, right in merges}
    if not made <= text_tokens.keys():
        raise ValueError(f"the merges make {min(made - text_tokens.keys())!r}, which is not a text token")
    if parts := {part for pair in merges for part in pair} - text_tokens.keys():
        raise ValueError(f"the merges are of {min(parts)!r}, which is not a text token")
    missing = {token for token in text_tokens if len(token) > 1 and token not in made}
    if not missing:
        return merges
    completed = merges + [_last_merge(token, text_tokens) for token in missing]
    return sorted(completed, key=lambda pair: text_tokens[pair[0] + pair[1]])


def _last_merge(token: str, ranks: dict[str, int]) -> tuple[str, str]:
    """The two parts that byte-pair encoding joins last when it makes a token: merge by rank until two are left."""
    if len(token) > LONGEST_TOKEN:  # the time that this takes grows with the square of the length
        raise ValueError(f"text token {token[:20]!r}… has {len(token)} bytes, expected {LONGEST_TOKEN} at most")
    parts = list(token)
    unmerged = len(ranks)
    while len(parts) > 2:
        pair_ranks = [ranks.get(left + right, unmerged) for left, right in pairwise(parts)]
        best = min(range(len(pair_ranks)), key=pair_ranks.__getitem__)
        if pair_ranks[best] == unmerged:
            raise ValueError(f"text token {token!r} cannot be merged from others; expected a byte-pair vocabulary")
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _from_tokenizer_json(path: Path) -> Vocabulary:
    description = read_json(path)
    try:
        ids = dict(description["model"]["vocab"])
        added = description["added_tokens"]
        # Written as "left right" before version 0.20 of `tokenizers`, as [left, right] since.
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in description["model"]["merges"]]
        return _with_added(ids, [(left, right) for left, right in pairs], added)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is not the description of a byte-pair tokenizer as `tokenizers` writes it: {error!r}"
        ) from error


def _from_vocabulary_and_merges(folder: Path) -> Vocabulary:
    """The ids of control tokens are in whichever of three files the writer chose."""
    ids = read_json_object(folder / "vocab.json")
    added: list[dict[str, Any]] = []
    if (folder / "tokenizer_config.json").is_file():
        described = read_json_object(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
        try:
            added = [{**token, "id": int(id_)} for id_, token in described.items()]
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{folder / 'tokenizer_config.json'} describes no added tokens: {error!r}") from error
    if (folder / "added_tokens.json").is_file():
        ids |= read_json_object(folder / "added_tokens.json")
    pairs = [tuple(line.split(" ")) for line in _lines(folder / "merges.txt") if not line.startswith("#version")]
    broken = next((pair for pair in pairs if len(pair) != 2), None)
    if broken:
        raise ValueError(f"{folder / 'merges.txt'} has the line {' '.join(broken)!r}, expected two tokens a line")
    try:
        return _with_added(ids, [(left, right) for left, right in pairs], added)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'tokenizer_config.json'} describes no added tokens: {error!r}") from error


def _with_added(ids: dict[str, int], merges: list[tuple[str, str]], added: Iterable[Mapping[str, Any]]) -> Vocabulary:
    """Added tokens as `tokenizers` describes them: each with content and id, and whether it is special."""
    added = list(added)
    special = frozenset(token["content"] for token in added if token.get("special"))
    return Vocabulary(ids | {token["content"]: token["id"] for token in added}, merges, special)


def _from_token_list(path: Path) -> dict[str, int]:
    tokens = read_json(path) if path.suffix == ".json" else _lines(path)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{path} is not a list of tokens")
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"{path} has {len(tokens) - len(set(tokens))} tokens twice; expected each once")
    return {token: id_ for id_, token in enumerate(tokens)}


def _checked(vocabulary: Vocabulary, file: Path) -> Vocabulary:
    """Refuse ids that are none, and two tokens with one id."""
    ids = vocabulary.ids
    for token, id_ in ids.items():
        if not isinstance(token, str) or type(id_) is not int or not 0 <= id_ < MOST_TOKENS:
            raise ValueError(f"{file} gives token {token!r} the id {id_!r}, expected a number below {MOST_TOKENS}")
    if len(set(ids.values())) < len(ids):
        raise ValueError(f"{file} gives {len(ids)} tokens {len(set(ids.values()))} ids; expected one for each token")
    if not all(isinstance(part, str) for pair in vocabulary.merges for part in pair):
        raise ValueError(f"{file} has merges that are not of two tokens")
    return vocabulary


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from error
