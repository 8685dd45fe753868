"""Scores of simultaneous translation: quality, latency and stability; no model and no torch is needed."""

from loquent.translate.score.by_word import word_by_word
from loquent.translate.score.clock import VirtualClock, corrected
from loquent.translate.score.instance import Instance
from loquent.translate.score.json_lines import LogError
from loquent.translate.score.latency import latency
from loquent.translate.score.quality import quality
from loquent.translate.score.recorder import Recorder
from loquent.translate.score.report import score, score_streams, table
from loquent.translate.score.resegment import Segment, resegment
from loquent.translate.score.simuleval import read_simuleval, write_simuleval
from loquent.translate.score.simulstream import (
    StreamLog,
    StreamStep,
    pieces_to_text,
    read_simulstream,
    write_simulstream,
)
from loquent.translate.score.stability import normalised_erasure

__all__ = [
    "Instance",
    "LogError",
    "Recorder",
    "Segment",
    "StreamLog",
    "StreamStep",
    "VirtualClock",
    "corrected",
    "latency",
    "normalised_erasure",
    "pieces_to_text",
    "quality",
    "read_simuleval",
    "read_simulstream",
    "resegment",
    "score",
    "score_streams",
    "table",
    "word_by_word",
    "write_simuleval",
    "write_simulstream",
]
