"""Speech recognition: Whisper on the streaming runtime."""

from loquent.asr.recognizer import Recognizer
from loquent.asr.streaming import StreamingOptions
from loquent.asr.transcribe import TranscribeOptions, Transcript

__all__ = ["Recognizer", "StreamingOptions", "TranscribeOptions", "Transcript"]
