"""A whole CosyVoice: the same speech whole and streamed, whatever the pieces of text and whoever else speaks."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import loquent.speech
from loquent.speech.audio.files import Audio, read_audio
from loquent.tts.cosyvoice.model import CosyVoice
from loquent.tts.cosyvoice.stages import StagesState, Utterance
from loquent.tts.cosyvoice.voice import Voice
from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.token_flow import Inference

TEXT = "the quick fox says so, and lazy dogs jump!"
TOLERANCE = 1e-4


def joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *parts])


@pytest.mark.parametrize("name", ["Anna", "Ben"])
def test_streamed_speech_is_the_whole_speech(name: str, cosyvoice: CosyVoice) -> None:
    """One is three passes over all there is, the other a thousand small steps."""
    whole = cosyvoice.synthesize(TEXT, name, in_turns=True, seed=3)
    assert whole.sample_rate == 24_000
    assert whole.duration_s > 1
    assert whole.samples.std() > 1e-3
    draw = random.Random(0)
    pieces = [""]
    for character in TEXT:
        pieces[-1] += character
        if draw.random() < 0.3:
            pieces.append("")
    parts = list(cosyvoice.stream(pieces, name, seed=3))
    assert len(parts) > 5
    assert len(joined(parts)) == len(whole.samples)
    np.testing.assert_allclose(joined(parts), whole.samples, rtol=0, atol=TOLERANCE)


def test_text_that_is_known_whole_is_spoken_as_such(cosyvoice: CosyVoice) -> None:
    whole = cosyvoice.synthesize(TEXT, "Ben", seed=3)
    parts = list(cosyvoice.stream([TEXT], "Ben", in_turns=False, seed=3))
    np.testing.assert_allclose(joined(parts), whole.samples, rtol=0, atol=TOLERANCE)
    in_turns = cosyvoice.synthesize(TEXT, "Ben", in_turns=True, seed=3)
    assert len(in_turns.samples) != len(whole.samples) or not np.allclose(in_turns.samples, whole.samples, atol=1e-2)


def test_speech_begins_before_the_text_has_ended(cosyvoice: CosyVoice) -> None:
    asked = []

    def pieces():
        for word in (TEXT + " " + TEXT).split(" "):
            asked.append(word)
            yield word + " "

    first = next(cosyvoice.stream(pieces(), "Ben", seed=3))
    assert len(first) > 0
    assert len(asked) < len(TEXT.split(" "))


def run(model: CosyVoice, state: StagesState, slot: int, utterance: Utterance) -> Tensor:
    """What comes of an utterance until it waits or ends."""
    parts = [torch.zeros(0)]
    while model.stages.ready(utterance):
        parts += model.stages.step(state, [slot], [utterance])
    return torch.cat(parts)


def test_batch_mates_change_nothing(cosyvoice: CosyVoice) -> None:
    stages, draw = cosyvoice.stages, random.Random(1)
    plans = [("Anna", 6, 1), ("Ben", 12, 2), ("Ben", 4, 3)]
    texts = [[draw.randrange(257, 300) for _ in range(length)] for _, length, _ in plans]
    if cosyvoice.config.version == 3:
        end = cosyvoice.tokenizer.end_of_prompt
        texts = [[end, *text] if name == "Anna" else text for (name, *_), text in zip(plans, texts, strict=True)]
    alone = [
        stages.whole(text, cosyvoice.voices[name], in_turns=True, seed=seed)
        for (name, _, seed), text in zip(plans, texts, strict=True)
    ]
    state, slots = stages.initial_state(5), draw.sample(range(5), 3)
    utterances = [
        stages.begin(state, slot, cosyvoice.voices[name], seed=seed)
        for slot, (name, _, seed) in zip(slots, plans, strict=True)
    ]
    found: list[list[Tensor]] = [[] for _ in plans]
    while not all(utterance.done for utterance in utterances):
        for utterance, text in zip(utterances, texts, strict=True):
            if not utterance.script.ended and draw.random() < 0.3:
                if text:
                    utterance.push([text.pop(0)])
                else:
                    utterance.finish()
        able = [index for index, utterance in enumerate(utterances) if stages.ready(utterance)]
        active = draw.sample(able, draw.randint(min(1, len(able)), len(able)))
        if active:
            parts = stages.step(state, [slots[i] for i in active], [utterances[i] for i in active])
            for index, part in zip(active, parts, strict=True):
                found[index].append(part)
    for parts, expected in zip(found, alone, strict=True):
        torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=TOLERANCE)


def test_a_stream_can_be_copied_and_saved(cosyvoice: CosyVoice) -> None:
    stages = cosyvoice.stages
    state = stages.initial_state(2)
    utterance = stages.begin(state, 1, cosyvoice.voices["Ben"], seed=5)
    utterance.push(range(257, 270))
    before = run(cosyvoice, state, 1, utterance)
    state.check()
    size, saved, memo = state.nbytes, state.to_bytes(), copy.deepcopy(utterance)

    def rest(pool: StagesState, one: Utterance) -> Tensor:
        one.push(range(275, 279))
        one.finish()
        return run(cosyvoice, pool, 1, one)

    expected = rest(state, utterance)
    assert state.nbytes == size
    assert len(before) > 0
    assert len(expected) > 0
    again = stages.initial_state(2)
    again.from_bytes(saved)
    assert torch.equal(rest(again, memo), expected)


def test_a_slot_that_was_used_is_as_new(cosyvoice: CosyVoice) -> None:
    stages, state = cosyvoice.stages, cosyvoice.stages.initial_state(1)
    found = []
    for _ in range(2):
        utterance = stages.begin(state, 0, cosyvoice.voices["Ben"], seed=5)
        utterance.push(range(257, 265))
        utterance.finish()
        found.append(run(cosyvoice, state, 0, utterance))
    assert torch.equal(*found)


def test_nothing_to_say_is_silence(cosyvoice: CosyVoice) -> None:
    assert len(cosyvoice.synthesize("", "Ben").samples) == 0
    assert list(cosyvoice.stream(["", ""], "Ben")) == []


def test_more_silence_than_enough_is_left_out(cosyvoice: CosyVoice) -> None:
    stages = copy.copy(cosyvoice.stages)
    stages.silent = frozenset(range(6561))
    utterance = Utterance(stages.generator.begin())
    for _ in range(9):
        stages._take(utterance, 1)
    assert utterance.waiting == [1] * 5
    stages.silent = frozenset(cosyvoice.config.silent)
    stages._take(utterance, 7)
    stages._take(utterance, 28)
    assert utterance.waiting == [1] * 5 + [7, 28]
    assert (28 in stages.silent) == (cosyvoice.config.version == 3)


def test_a_recording_gives_its_voice(cosyvoice: CosyVoice, checkpoint: Path, tiny) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    sample = read_audio(Path(loquent.speech.__file__).parent / "assets" / "sample.flac")
    recording = Audio(sample.samples[: 2 * sample.sample_rate + 77], sample.sample_rate)
    with pytest.raises(FileNotFoundError, match="speech_tokenizer_v"):
        cosyvoice.voice(recording, "so they say")
    tiny.write_readers(checkpoint, cosyvoice.config.version)
    try:
        voice = cosyvoice.voice(recording, "so they say", instruction="Say it.")
        sound = cosyvoice.voice(recording)
        with pytest.raises(ValueError, match="tells nothing of a voice"):
            cosyvoice.voice(Audio(np.zeros(100, np.float32), 16000), "so")
    finally:
        for file in checkpoint.glob("*.onnx"):
            file.unlink()
    assert voice.text == tuple(cosyvoice.tokenizer.encode("Say it.<|endofprompt|>so they say"))
    assert len(voice.spoken) == len(voice.speech) == 50  # 25 a second
    assert (sound.spoken, sound.speech) == ((), voice.speech)
    neutral = "" if cosyvoice.config.version == 2 else "You are a helpful assistant.<|endofprompt|>"
    assert list(sound.text) == cosyvoice.tokenizer.encode(neutral)
    assert voice.mel is not None
    assert voice.mel.shape == (100, 80)
    assert voice.speaker.shape == (12,)
    for one in (voice, sound):
        whole = cosyvoice.synthesize("lazy dogs", one, in_turns=True)
        streamed = joined(list(cosyvoice.stream(["lazy ", "dogs"], one)))
        np.testing.assert_allclose(streamed, whole.samples, rtol=0, atol=TOLERANCE)


def test_voices_that_do_not_fit_are_refused(cosyvoice: CosyVoice) -> None:
    with pytest.raises(ValueError, match="there is no voice 'Carla'; known are Anna, Ben"):
        cosyvoice.synthesize(TEXT, "Carla")
    with pytest.raises(ValueError, match="an embedding of 5 and 80 mel bins, the model 12 and 80"):
        cosyvoice.synthesize(TEXT, Voice(torch.zeros(5)))
    with pytest.raises(ValueError, match="of 2 speech codes needs twice as many frames, got 3"):
        Voice(torch.zeros(12), speech=(1, 2), mel=torch.zeros(3, 80))
    with pytest.raises(ValueError, match="not finite"):
        Voice(torch.full((12,), torch.nan))


def test_the_flow_can_be_run_otherwise(checkpoint: Path) -> None:
    """As upstream does, in chunks; and with all of the future, which is no stream."""
    chunks = CosyVoice.from_pretrained(checkpoint, device="cpu", capacity=300)
    assert chunks.stages.flow.how == Inference(ChunkMask(5, 10), steps=10, guidance=0.7)
    full = CosyVoice.from_pretrained(checkpoint, device="cpu", flow=Inference(ChunkMask(None)), capacity=300)
    chunks.stages.generator.most = full.stages.generator.most = 3.0
    spoken = [model.synthesize("so", "Ben", in_turns=True, seed=3).samples for model in (chunks, full)]
    assert np.isfinite(spoken[1]).all()
    assert spoken[0].shape == spoken[1].shape
    assert not np.allclose(*spoken, atol=1e-3)
    streamed = joined(list(chunks.stream(["so"], "Ben", seed=3)))
    np.testing.assert_allclose(streamed, spoken[0], rtol=0, atol=TOLERANCE)
    with pytest.raises(ValueError, match="cannot be streamed"):
        next(full.stream(["so"], "Ben"))
