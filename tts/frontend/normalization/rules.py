"""All rules of reading, the more special ones first."""

from __future__ import annotations

from collections.abc import Callable

from loquent.tts.frontend.normalization.abbreviations import abbreviation, initial
from loquent.tts.frontend.normalization.addresses import file_name, tag, telephone, version, web_address
from loquent.tts.frontend.normalization.calendar import date, day_of_month, month
from loquent.tts.frontend.normalization.clock import half_day, ratio, span_of_hours, time_of_day
from loquent.tts.frontend.normalization.codes import code
from loquent.tts.frontend.normalization.money import money
from loquent.tts.frontend.normalization.numerals import decade, fraction, number_range, numeral, ordinal_number
from loquent.tts.frontend.normalization.roman import roman
from loquent.tts.frontend.normalization.units import feet, measure, unit
from loquent.tts.frontend.normalization.view import Reading, View

WORDS: tuple[Callable[[View], Reading | None], ...] = (
    half_day,
    abbreviation,
    initial,
    month,
    roman,
    money,
    unit,
    web_address,
    file_name,
    tag,
)
FIGURES: tuple[Callable[[View], Reading | None], ...] = (
    money,
    telephone,
    date,
    day_of_month,
    half_day,
    time_of_day,
    span_of_hours,
    ratio,
    decade,
    fraction,
    unit,
    feet,
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
