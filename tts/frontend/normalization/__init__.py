"""Written English as it is spoken: numbers, dates, money, abbreviations, and what else is not read letter by letter."""
