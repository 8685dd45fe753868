"""The page of samples: voices read sentences, with their spectrograms and the times of their words.

    python benchmarks/tts_samples.py loquent/hibari:words loquent/hibari:sentence loquent/voice:words

Writes `docs/samples/` (Opus and JPEG) and `docs/samples.md`. A voice is given with a context, and with one of its
speakers if it has several: `loquent/voice:words:baritone`. In a spectrogram, lines mark where words begin, and the bar
above it the chunks in which the speech came.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from loquent.speech.audio.files import write_audio
from loquent.speech.runtime.events import Speech, Word
from loquent.tts import Synthesizer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1] / "docs"
SENTENCES = (
    "Streaming speech begins while the text is still being written.",
    "Did Dr. Smith really pay $5 million for it on March 3, 2024?",
    "The sun had set, the boats were in, and nobody said a word.",
)
HEAD = """# Samples

What the voices sound like. Each sentence came word by word, as from a language model; the samples are those of the
whole text. Lines mark where words begin, the bar the chunks in which the speech came. Made by
`python benchmarks/tts_samples.py {arguments}`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voices", nargs="+", metavar="MODEL:CONTEXT[:SPEAKER]")
    options = parser.parse_args()
    (ROOT / "samples").mkdir(exist_ok=True)
    page = [HEAD.format(arguments=" ".join(options.voices))]
    for number, sentence in enumerate(SENTENCES, start=1):
        page.append(f"\n## {sentence}\n")
        for voice in options.voices:
            name = f"{number}-{voice.replace('/', '-').replace(':', '-').replace('+', '-')}"
            speak(voice, sentence, ROOT / "samples" / name)
            model, context, *speaker = voice.split(":", 2)
            who = f"{model}{', ' + speaker[0] if speaker else ''}, context of {context}"
            page.append(f"[{who}](samples/{name}.opus)\n\n![spectrogram](samples/{name}.jpg)\n")
    (ROOT / "samples.md").write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")


def speak(voice: str, sentence: str, path: Path) -> None:
    """Write the speech of a sentence that comes word by word, and its spectrogram."""
    model, context, *speaker = voice.split(":", 2)
    synthesizer = Synthesizer.from_pretrained(model)
    session = synthesizer.session(context=context, voice=speaker[0] if speaker else "")
    events = [event for word in sentence.split() for event in session.push(word + " ")] + session.finish()
    speech = [event for event in events if isinstance(event, Speech)]
    samples = np.concatenate([event.samples for event in speech])
    write_audio(path.with_suffix(".opus"), samples, synthesizer.sample_rate)
    words = [event for event in events if isinstance(event, Word)]
    figure, axes = plt.subplots(figsize=(9, 2.4), dpi=80)
    axes.specgram(
        samples + 1e-6, NFFT=1024, Fs=synthesizer.sample_rate, noverlap=768, cmap="magma", vmin=-120, vmax=-30
    )
    for word in words:
        axes.axvline(word.start, color="white", linewidth=0.6, alpha=0.7)
        axes.text(word.start + 0.01, 8300, word.text.strip(), color="white", fontsize=7, va="top", rotation=0)
    for index, event in enumerate(speech):
        axes.axvspan(event.start, event.end, 0.97, 1.0, color=("tab:blue", "tab:cyan")[index % 2])
    axes.set(
        xlim=(0, len(samples) / synthesizer.sample_rate),
        ylim=(0, 8500),
        xlabel="seconds",
        yticks=[0, 4000, 8000],
        yticklabels=["0", "4 kHz", "8 kHz"],
    )
    figure.tight_layout()
    figure.savefig(path.with_suffix(".jpg"))
    plt.close(figure)


if __name__ == "__main__":
    main()
