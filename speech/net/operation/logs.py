"""The log of a server: lines for people, or JSON for programs; one line for each stream, without what was said."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")


class TextLines(logging.Formatter):
    """Time, level, message, and the fields of the record by name."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without what was raised."""
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        return super().formatMessage(record) + fields


class JsonLines(logging.Formatter):
    """A JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, ``error``, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def logging_config(format: Format, level: str) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes: everything on standard error."""
    formatter = f"{__name__}.{'JsonLines' if format == 'json' else 'TextLines'}"
    own = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"loquent": own, "uvicorn": own},
    }
