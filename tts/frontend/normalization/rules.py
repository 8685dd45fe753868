"""All rules of reading, the more special ones first."""

from __future__ import annotations

from collections.abc import Callable

from loquent.tts.frontend.normalization.abbreviations import abbreviation, initial
from loquent.tts.frontend.normalization.addresses import file_name, tag, telephone, version, web_address
from loquent.tts.frontend.normalization.calendar import date, day_of_month, month, time_of_day
from loquent.tts.frontend.normalization.codes import code
from loquent.tts.frontend.normalization.money import money
from loquent.tts.frontend.normalization.numerals import decade, fraction, number_range, numeral, ordinal_number
from loquent.tts.frontend.normalization.roman import roman
from loquent.tts.frontend.normalization.units import measure
from loquent.tts.frontend.normalization.view import Reading, View

WORDS: tuple[Callable[[View], Reading | None], ...] = (
    time_of_day,
    abbreviation,
    initial,
    month,
    roman,
    money,
    measure,
    web_address,
    file_name,
    tag,
)
FIGURES: tuple[Callable[[View], Reading | None], ...] = (
    money,
    telephone,
    date,
    day_of_month,
    time_of_day,
    decade,
    fraction,
    measure,
    number_range,
    ordinal_number,
    numeral,
    version,
    web_address,
    file_name,
    tag,
)


def reading_of(view: View) -> Reading:
    """How the first pieces of a view are spoken.

    Raises:
        Undecided: it depends on text that has not come yet.
    """
    for rule in FIGURES if any(map(str.isnumeric, view.core)) else WORDS:
        reading = rule(view)
        if reading is not None:
            return reading
    return code(view)
