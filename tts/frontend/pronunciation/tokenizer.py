"""Words to tokens as spaCy cuts English, which the tagger was trained on: "(don't)" to "(", "do", "n't", ")".

Port of the tokenizer of hibari-tts 0.2.1 (Apache-2.0, Maureese Williams), which follows the rules of spaCy (MIT,
ExplosionAI), see `tts/assets/english/NOTICE`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from loquent.tts.frontend.pronunciation.tables import Table

LETTER = r"[^\W\d_]"
LOWER, UPPER = "a-zß-öø-ÿ", "A-ZÀ-ÖØ-Þ"
QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉"
PUNCTUATION = "…,:;!?¿¡()[]{}<>_#*&。？！，、；：～·"
ICONS = "[™®©°§¶†‡•]"
CURRENCY = r"\$|£|€|¥|฿|US\$|C\$|A\$|₽|₹|₩|₪|₺|₴|₦|₫|₱|₲|₵|₸|₼|₾|₿"
UNITS = (
    r"km|km²|km³|m|m²|m³|dm|dm²|dm³|cm|cm²|cm³|mm|mm²|mm³|ha|µm|nm|yd|in|ft|kg|g|mg|µg|t|lb|oz|m/s|km/h"
    r"|kmh|mph|hPa|Pa|mbar|mb|MB|kb|KB|gb|GB|tb|TB|T|G|M|K|%"
)
SINGLE = [*map(re.escape, PUNCTUATION), *map(re.escape, QUOTES)]
PREFIX = re.compile(
    "|".join(f"^(?:{p})" for p in ["§", "%", "=", "—", "–", r"\+(?![0-9])", "…", *SINGLE, r"\.\.+", CURRENCY, ICONS])
)
SUFFIX = re.compile(
    "|".join(
        f"(?:{p})$"
        for p in [
            *SINGLE,
            r"\.\.+",
            ICONS,
            *("'s", "'S", "’s", "’S", "—", "–"),
            r"(?<=[0-9])\+",
            r"(?<=°[FfCcKk])\.",
            rf"(?<=[0-9])(?:{CURRENCY})",
            rf"(?<=[0-9])(?:{UNITS})",
            rf"(?<=[0-9{LOWER}%²\-\+{re.escape(PUNCTUATION)}{re.escape(QUOTES)}])\.",
            rf"(?<=[{UPPER}][{UPPER}])\.",
        ]
    )
)
INFIX = re.compile(
    "|".join(
        f"(?:{p})"
        for p in [
            r"\.\.+",
            "…",
            ICONS,
            r"(?<=[0-9])[+\-\*^](?=[0-9-])",
            rf"(?<=[{LOWER}{re.escape(QUOTES)}])\.(?=[{UPPER}{re.escape(QUOTES)}])",
            rf"(?<={LETTER}),(?={LETTER})",
            rf"(?<=[^\W_])(?:-|–|—|--|---|——|~)(?={LETTER})",
            rf"(?<=[^\W_])[:<>=/](?={LETTER})",
        ]
    )
)


class Tokenizer:
    """Cuts a text without white space into tokens, which join to it.

    Args:
        exceptions: texts and their tokens, separated by tabs.
    """

    def __init__(self, exceptions: Table) -> None:
        self._exceptions = exceptions
        self._cached = lru_cache(maxsize=4096)(self._split)

    def __call__(self, text: str) -> tuple[str, ...]:
        """The tokens of a text."""
        return self._cached(text)

    def _split(self, text: str) -> tuple[str, ...]:
        special = self._special(text)
        if special:
            return special
        before, middle, after = self._peel(text)
        tokens = [*before, *(self._special(middle) or _at_infixes(middle)), *after]
        return tuple(self._rejoin(tokens) if len(tokens) > 1 else tokens)

    def _special(self, text: str) -> tuple[str, ...]:
        value = self._exceptions.get(text)
        return tuple(value.split("\t")) if value is not None else ()

    def _peel(self, text: str) -> tuple[list[str], str, list[str]]:
        """Take prefixes and suffixes off, in turn, until an exception or nothing of the kind is left."""
        before: list[str] = []
        after: list[str] = []
        while text and not self._special(text):
            found = PREFIX.search(text)
            first = found.end() if found else 0
            if first and self._special(text[first:]):
                before.append(text[:first])
                return before, text[first:], after[::-1]
            found = SUFFIX.search(text[first:])
            last = found.end() - found.start() if found else 0
            if last and self._special(text[:-last]):
                after.append(text[-last:])
                return before, text[:-last], after[::-1]
            if not first and not last:
                break
            if first:
                before.append(text[:first])
            if last:
                after.append(text[len(text) - last :])
            text = text[first : len(text) - last]
        return before, text, after[::-1]

    def _rejoin(self, tokens: list[str]) -> list[str]:
        """Neighbours that are an exception together: "Sept" and "." to "Sept."."""
        result: list[str] = []
        at = 0
        while at < len(tokens):
            for count in (3, 2):
                special = self._special("".join(tokens[at : at + count])) if at + count <= len(tokens) else ()
                if special:
                    result += special
                    at += count
                    break
            else:
                result.append(tokens[at])
                at += 1
        return result


def _at_infixes(text: str) -> list[str]:
    tokens, start = [], 0
    for found in INFIX.finditer(text):
        if found.start() > 0:
            tokens += [text[start : found.start()], found.group()] if found.start() > start else [found.group()]
            start = found.end()
    return [*tokens, text[start:]] if start < len(text) else tokens
