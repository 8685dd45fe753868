"""Names of the units of measure by their symbols."""

from __future__ import annotations

# One and several; None: an -s.
UNITS = {
    symbol: (one, several or f"{one}s")
    for symbol, one, several in (
        ("km", "kilometer", None), ("m", "meter", None), ("dm", "decimeter", None), ("cm", "centimeter", None),
        ("mm", "millimeter", None), ("µm", "micrometer", None), ("μm", "micrometer", None), ("nm", "nanometer", None),
        ("mi", "mile", None), ("yd", "yard", None), ("yds", "yard", None), ("ft", "foot", "feet"),
        ("ha", "hectare", None), ("ac", "acre", None), ("kg", "kilogram", None), ("g", "gram", None),
        ("mg", "milligram", None), ("µg", "microgram", None), ("μg", "microgram", None), ("mcg", "microgram", None),
        ("lb", "pound", None), ("lbs", "pound", None), ("oz", "ounce", None), ("t", "ton", None),
        ("L", "liter", None), ("l", "liter", None), ("ml", "milliliter", None), ("mL", "milliliter", None),
        ("cl", "centiliter", None), ("dl", "deciliter", None), ("dL", "deciliter", None), ("gal", "gallon", None),
        ("qt", "quart", None), ("pt", "pint", None), ("tsp", "teaspoon", None), ("tbsp", "tablespoon", None),
        ("s", "second", None), ("sec", "second", None), ("secs", "second", None), ("ms", "millisecond", None),
        ("µs", "microsecond", None), ("μs", "microsecond", None), ("ns", "nanosecond", None),
        ("min", "minute", None), ("mins", "minute", None), ("h", "hour", None), ("hr", "hour", None),
        ("hrs", "hour", None), ("yr", "year", None), ("yrs", "year", None), ("wk", "week", None),
        ("wks", "week", None), ("mo", "month", None), ("mos", "month", None),
        ("mph", "mile per hour", "miles per hour"), ("kph", "kilometer per hour", "kilometers per hour"),
        ("kmh", "kilometer per hour", "kilometers per hour"), ("mpg", "mile per gallon", "miles per gallon"),
        ("rpm", "revolution per minute", "revolutions per minute"), ("fps", "frame per second", "frames per second"),
        ("bpm", "beat per minute", "beats per minute"), ("dpi", "dot per inch", "dots per inch"),
        ("ppm", "part per million", "parts per million"), ("Hz", "hertz", "hertz"), ("kHz", "kilohertz", "kilohertz"),
        ("MHz", "megahertz", "megahertz"), ("GHz", "gigahertz", "gigahertz"), ("kb", "kilobit", None),
        ("kbit", "kilobit", None), ("Mbit", "megabit", None), ("Gbit", "gigabit", None), ("Mb", "megabit", None),
        ("Gb", "gigabit", None),
        ("KB", "kilobyte", None), ("kB", "kilobyte", None), ("MB", "megabyte", None), ("GB", "gigabyte", None),
        ("TB", "terabyte", None), ("PB", "petabyte", None), ("KiB", "kibibyte", None), ("MiB", "mebibyte", None),
        ("GiB", "gibibyte", None), ("kbps", "kilobit per second", "kilobits per second"),
        ("Mbps", "megabit per second", "megabits per second"), ("Gbps", "gigabit per second", "gigabits per second"),
        ("W", "watt", None), ("kW", "kilowatt", None), ("MW", "megawatt", None), ("GW", "gigawatt", None),
        ("mW", "milliwatt", None), ("kWh", "kilowatt hour", None), ("MWh", "megawatt hour", None),
        ("Wh", "watt hour", None), ("mAh", "milliamp hour", None), ("V", "volt", None), ("kV", "kilovolt", None),
        ("mV", "millivolt", None), ("mA", "milliamp", None), ("Ω", "ohm", None), ("J", "joule", None),
        ("kJ", "kilojoule", None), ("cal", "calorie", None), ("kcal", "kilocalorie", None), ("N", "newton", None),
        ("Pa", "pascal", None), ("kPa", "kilopascal", None), ("hPa", "hectopascal", None), ("psi", "P.S.I", "P.S.I"),
        ("mbar", "millibar", None), ("dB", "decibel", None), ("px", "pixel", None), ("MP", "megapixel", None),
        ("pct", "percent", "percent"),
        ("cc", "C.C", "C.C"), ("hp", "horsepower", "horsepower"), ("%", "percent", "percent"),
        ("°", "degree", None), ("°C", "degree Celsius", "degrees Celsius"), ("℃", "degree Celsius", "degrees Celsius"),
        ("°F", "degree Fahrenheit", "degrees Fahrenheit"), ("℉", "degree Fahrenheit", "degrees Fahrenheit"),
        ("°K", "kelvin", None), ("in", "inch", "inches"), ("sq", "square", "square"), ("cu", "cubic", "cubic"),
        ("cb", "cubic", "cubic"), ("‰", "per mille", "per mille"),
    )
}  # fmt: skip
