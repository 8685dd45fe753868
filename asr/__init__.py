"""Speech recognition: Whisper and the Conformer on the streaming runtime."""

from loquent.asr.recognizer import Recognizer
from loquent.asr.transcript import Transcript
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.offline.options import TranscribeOptions

__all__ = ["Recognizer", "StreamingOptions", "TranscribeOptions", "Transcript"]
