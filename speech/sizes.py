"""Checks the sizes in a configuration before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def check_sizes(config: Any, largest: Mapping[str, int], least: int = 1) -> None:
    """Make sure that attributes are whole numbers within bounds.

    Args:
        config: has the attributes.
        largest: of each attribute, by name.
        least: of all of them.

    Raises:
        ValueError: one is out of bounds or no whole number.
    """
    for name, most in largest.items():
        value = getattr(config, name)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name} is {str(value)[:40]!r}, expected a whole number from {least} to {most}")


def check_fraction(name: str, value: Any) -> None:
    """Make sure that a value is a number from 0 to below 1, such as a rate of dropout; raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < 1:
        raise ValueError(f"{name} is {str(value)[:40]!r}, expected a number from 0 to below 1")
