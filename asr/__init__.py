"""Speech recognition: Whisper and the Conformer on the streaming runtime."""

from loquent.asr.recognizer import Recognizer
from loquent.asr.streaming_options import StreamingOptions
from loquent.asr.transcribe_options import TranscribeOptions
from loquent.asr.transcript import Transcript

__all__ = ["Recognizer", "StreamingOptions", "TranscribeOptions", "Transcript"]
