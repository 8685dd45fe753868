"""Numbers that stand by themselves: counts, decimals, ordinals, years."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.number_words import count, decimal, digits, ordinal, year
from loquent.tts.frontend.normalization.view import Reading, View, said

ORDINAL = re.compile(r"(\d{1,3}(?:,\d{3})*|\d+)(?:st|nd|rd|th)", re.IGNORECASE)
NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?|([+-]?)(\.\d+)")


def numeral(view: View) -> Reading | None:
    """A number in digits."""
    core = view.piece.core
    found = ORDINAL.fullmatch(core)
    if found and len(found[1]) < 30:
        return said(*ordinal(int(found[1].replace(",", ""))))
    found = NUMBER.fullmatch(core)
    if not found:
        return None
    sign = {"+": ["plus"], "-": ["minus"]}.get(found[1] or found[4] or "", [])
    whole, fraction = (found[2] or "").replace(",", ""), found[3] or found[5] or ""
    if fraction:
        return said(*sign, *decimal(whole + fraction))
    if "," not in core and not sign and len(whole) == 4 and 1100 <= int(whole) <= 2099:
        return said(*year(int(whole)))
    if len(whole) > 1 and whole[0] == "0" and "," not in core:
        return said(*sign, *digits(whole))
    return said(*sign, *count(whole))
