"""Which languages a model translates between, as its files or their names say."""

from __future__ import annotations

import re
from pathlib import Path

from loquent.speech.json_files import read_json_object
from loquent.speech.text.languages import LANGUAGES

# File -> the names in it, of what Hugging Face and Mozilla put beside a model.
METADATA = {
    "tokenizer_config.json": ("source_lang", "target_lang"),
    "metadata.json": ("sourceLanguage", "targetLanguage"),
}
PAIR = re.compile(r"([A-Za-z]{2,3})[-_]([A-Za-z]{2,3})$")  # opus-mt-en-de
TOGETHER = re.compile(r"(?:^|\.)([a-z]{2})([a-z]{2})(?:\.|$)")  # model.ende.intgemm.alphas.bin


def find_languages(path: Path, source: str | None, target: str | None) -> tuple[str, str]:
    """Codes of the source and the target language.

    Args:
        path: of a model, a folder or a file in it.
        source, target: codes if they are known, else None.

    Raises:
        ValueError: they are not known, and nothing says them.
    """
    if source is None or target is None:
        file = path.absolute()
        folder = file if file.is_dir() else file.parent
        # A hub keeps ``models--owner--name/snapshots/commit``.
        said = _in_names(file, folder) or _in_files(folder) or _in_names(*folder.parents[:2])
        if said is None:
            raise ValueError(
                f"{path} does not say which languages it translates between: give source= and target=, "
                "or name the folder after them, such as 'opus-mt-en-de'"
            )
        source, target = source or said[0], target or said[1]
    return source, target


def _in_files(folder: Path) -> tuple[str, str] | None:
    for file, names in METADATA.items():
        try:
            values = read_json_object(folder / file)
        except (OSError, ValueError):
            continue
        found = [value for name in names if isinstance(value := values.get(name), str) and value]
        if len(found) == 2:
            return found[0], found[1]
    return None


def _in_names(*paths: Path) -> tuple[str, str] | None:
    for path in paths:
        for pattern in (TOGETHER, PAIR):
            found = pattern.search(path.name)
            if found and all(code in LANGUAGES or len(code) == 3 for code in found.groups()):
                return found[1], found[2]
    return None
