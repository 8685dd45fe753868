"""Reads Whisper's vocabulary from the files that models come with, and derives merges that the files lack."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any


def read_vocabulary(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token -> id and the byte-pair merges, most frequent first, from a model folder or a `tokenizer.json`.

    Raises:
        FileNotFoundError: no file of a known name holds a vocabulary.
        ValueError: a file is not what its name promises.
    """
    folder = path if path.is_dir() else path.parent
    description = folder / "tokenizer.json" if path.is_dir() else path
    if description.is_file():
        return _from_tokenizer_json(description)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _from_vocabulary_and_merges(folder)
    for name in ("vocabulary.json", "vocabulary.txt"):
        if (folder / name).is_file():
            return _from_token_list(folder / name), []
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
    missing = {token for token in text_tokens if len(token) > 1 and token not in made}
    if not missing:
        return merges
    completed = merges + [_last_merge(token, text_tokens) for token in missing]
    return sorted(completed, key=lambda pair: text_tokens[pair[0] + pair[1]])


def _last_merge(token: str, ranks: dict[str, int]) -> tuple[str, str]:
    """The two parts that byte-pair encoding joins last when it makes a token: merge by rank until two are left."""
    parts = list(token)
    unmerged = len(ranks)
    while len(parts) > 2:
        pair_ranks = [ranks.get(left + right, unmerged) for left, right in pairwise(parts)]
        best = min(range(len(pair_ranks)), key=pair_ranks.__getitem__)
        if pair_ranks[best] == unmerged:
            raise ValueError(f"text token {token!r} cannot be merged from others; expected a byte-pair vocabulary")
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _from_tokenizer_json(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    description = _read_json(path)
    try:
        vocabulary = dict(description["model"]["vocab"])
        vocabulary |= {token["content"]: token["id"] for token in description["added_tokens"]}
        # Written as "left right" before version 0.20 of `tokenizers`, as [left, right] since.
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in description["model"]["merges"]]
        return vocabulary, [(left, right) for left, right in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not the description of a byte-pair tokenizer as `tokenizers` writes it: {error!r}"
        ) from error


def _from_vocabulary_and_merges(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The ids of control tokens are in whichever of three files the writer chose."""
    vocabulary = _read_json(folder / "vocab.json")
    if (folder / "tokenizer_config.json").is_file():
        added: dict[str, Any] = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
        vocabulary |= {token["content"]: int(id_) for id_, token in added.items()}
    if (folder / "added_tokens.json").is_file():
        vocabulary |= _read_json(folder / "added_tokens.json")
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    broken = next((pair for pair in pairs if len(pair) != 2), None)
    if broken:
        raise ValueError(f"{folder / 'merges.txt'} has the line {' '.join(broken)!r}, expected two tokens a line")
    return vocabulary, [(left, right) for left, right in pairs]


def _from_token_list(path: Path) -> dict[str, int]:
    tokens = _read_json(path) if path.suffix == ".json" else path.read_text(encoding="utf-8").split("\n")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{path} is not a list of tokens")
    return {token: id_ for id_, token in enumerate(tokens)}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
