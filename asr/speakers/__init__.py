"""Who said which word, for whoever brings a model that tells voices apart."""

from loquent.asr.speakers.labels import SpeakerEmbedding, SpeakerLabels
from loquent.asr.speakers.task import SpeakerTask

__all__ = ["SpeakerEmbedding", "SpeakerLabels", "SpeakerTask"]
