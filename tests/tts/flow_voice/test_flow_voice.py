"""The flow voice: acoustics of words, speakers, folders; and that what it streams is what it speaks offline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from loquent.speech.runtime.events import Speech
from loquent.tts.acoustics import PhoneWindow
from loquent.tts.flow_voice.model import Nets
from loquent.tts.flow_voice.prosody import LEAD, Frames, frame_durations, hertz, places, scaled_pitch
from loquent.tts.flow_voice.voice import FlowVoice
from loquent.tts.synthesizer import Synthesizer
from loquent.tts.task import SpeechTask
from loquent.tts.voices import family_of

WINDOW = PhoneWindow(range(3, 23), begin=6, end=12, opens=False, closes=False)


def test_acoustics_have_a_phone_more_at_both_ends_of_an_utterance(nets) -> None:
    voice = FlowVoice(nets)
    for opens in (False, True):
        for closes in (False, True):
            for begin, end in ((0, 6), (6, 12), (12, 20), (0, 20)):
                window = replace(WINDOW, begin=begin, end=end, opens=opens, closes=closes)
                [made] = voice.acoustics([window])
                count = end - begin + (opens and begin == 0) + (closes and end == 20)
                assert made.phones.shape == (count, voice.phone_size)
                assert made.durations.shape == (count,)
                assert int(made.durations.min()) >= 1
                assert made.curves.shape == (int(made.durations.sum()), voice.curve_size)


def test_an_utterance_begins_with_little_silence(nets) -> None:
    torch.nn.init.constant_(nets.prosody.duration.bias, 3.0)  # 20 frames
    [made] = FlowVoice(nets).acoustics([replace(WINDOW, begin=0, opens=True)])
    assert int(made.durations[0]) == LEAD
    assert int(made.durations[1]) > LEAD


def test_acoustics_depend_on_their_own_window_alone(nets) -> None:
    voice = FlowVoice(nets)
    other = replace(WINDOW, phones=range(1, 40), begin=20, end=30, speaker=1)
    [alone] = voice.acoustics([WINDOW])
    _, among, _ = voice.acoustics([other, WINDOW, other])
    for one, same in ((alone.phones, among.phones), (alone.durations, among.durations), (alone.curves, among.curves)):
        assert torch.equal(one, same)
    [changed] = voice.acoustics([replace(WINDOW, phones=[*WINDOW.phones[:-1], 40])])
    assert not torch.equal(changed.curves, alone.curves)


def test_curves_of_a_word_are_those_of_the_whole_window(nets) -> None:
    voice, net = FlowVoice(nets), nets.prosody
    [made] = voice.acoustics([WINDOW])
    with torch.no_grad():
        hidden, logs = net(torch.tensor([list(WINDOW.phones)]), torch.tensor([[1.0, 0.0]]))
        durations = torch.cat([frame_durations(part, 1.0) for part in logs[0].split([6, 6, 8])])
        phone, place = places(durations)
        curves = net.curves(hidden, Frames(phone[None], place[None], torch.ones(1, len(phone), dtype=torch.bool)))
    first = int(durations[:6].sum())
    wanted = curves[0, first : first + len(made.curves)]
    torch.testing.assert_close(made.curves[:, 2:4], wanted[:, 4:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.curves[:, :2], hertz(wanted[:, :2], wanted[:, 2:4]), atol=1e-2, rtol=1e-4)


def test_durations_follow_the_tempo_and_keep_their_sum(nets) -> None:
    logs = torch.linspace(-1, 3, 50)
    for speed in (0.5, 1.0, 1.7):
        durations = frame_durations(logs, speed)
        wanted = logs.exp() / speed
        assert int(durations.min()) == 1
        assert (durations - wanted).abs().max() < 1.6
        assert abs(float(durations.sum() - wanted.clamp(min=1).sum())) < 2
    assert int(frame_durations(torch.tensor([50.0]), 1.0)) == 80


def test_pitch_is_scaled_and_back() -> None:
    pitch = torch.tensor([0.0, 60.0, 170.0, 400.0])
    voicing = torch.where(pitch > 0, 1.0, -1.0)
    torch.testing.assert_close(hertz(scaled_pitch(pitch), voicing), pitch)


def test_speakers_can_be_mixed(nets) -> None:
    voice = FlowVoice(nets)
    windows = [replace(WINDOW, speaker=speaker) for speaker in (0, {0: 1.0}, {0: 0.5, 1: 0.5}, 1)]
    first, same, between, second = (made.phones for made in voice.acoustics(windows))
    assert torch.equal(first, same)
    assert (between - first).norm() < (second - first).norm()
    for speaker in (2, -1, {}, {0: 0.5, 3: 0.5}):
        with pytest.raises(ValueError, match=r"expected numbers of 0 \(high\), 1 \(low\)"):
            voice.acoustics([replace(WINDOW, speaker=speaker)])


def test_a_folder_keeps_a_voice(nets, tmp_path) -> None:
    voice = FlowVoice(nets)
    nets.save(tmp_path)
    again = FlowVoice.load(tmp_path)
    assert again.fingerprint == voice.fingerprint
    assert again.fingerprint != FlowVoice.load(tmp_path, chunk=5).fingerprint
    assert family_of(tmp_path).load() is FlowVoice
    nets.save(tmp_path, torch.float16)
    assert Nets.load(tmp_path).prosody.phone.weight.dtype == torch.float32
    (tmp_path / "config.json").write_text('{"model_type": "hibari"}')
    with pytest.raises(ValueError, match="holds no flow voice"):
        FlowVoice.load(tmp_path)


@pytest.mark.parametrize(("context", "chunk"), [("words", 5), ("sentence", 5), ("sentence", None)])
def test_what_it_streams_is_what_it_speaks_offline(nets, phonemizer, context: str, chunk: int | None) -> None:
    synthesizer = Synthesizer(SpeechTask(FlowVoice(nets, chunk=chunk), phonemizer))
    text = "A fox ran to the old dog. It was tired!"
    whole = synthesizer.synthesize(text, context=context, voice="high:0.3+low:0.7").samples
    session = synthesizer.session(context=context, voice="high:0.3+low:0.7")
    events = [event for letter in text for event in session.push(letter)] + session.finish()
    streamed = np.concatenate([event.samples for event in events if isinstance(event, Speech)])
    assert len(whole) > 24000
    assert np.abs(whole).max() > 1e-3
    np.testing.assert_allclose(streamed, whole, atol=1e-4)


def test_streams_obey_the_laws(nets, phonemizer, task_laws) -> None:
    task = SpeechTask(FlowVoice(nets, chunk=5), phonemizer)
    texts = [["A fox. It", task_laws.FLUSH, " ran"], ["Yes"]]
    options = {"voice": "high+low", "speed": 2.0, "seed": 5}
    task_laws.check_task(task_laws.on_engine(task, **options), texts, examples=2, atol=1e-4)


@pytest.fixture(scope="module")
def shipped() -> Synthesizer:
    """The voice that comes with loquent."""
    return Synthesizer.from_pretrained("loquent/voice")


def test_the_shipped_voice_speaks(shipped: Synthesizer) -> None:
    assert shipped.voices == ("alto", "baritone")
    text = "The quick brown fox jumps over the lazy dog."
    speech = {voice: shipped.synthesize(text, voice=voice).samples for voice in shipped.voices}
    for samples in speech.values():
        assert 2 < len(samples) / shipped.sample_rate < 5
        assert 0.02 < np.sqrt(np.mean(samples**2)) < 0.2
        assert np.abs(samples).max() <= 1
    session = shipped.session()
    events = [event for word in text.split() for event in session.push(word + " ")] + session.finish()
    streamed = np.concatenate([event.samples for event in events if isinstance(event, Speech)])
    np.testing.assert_allclose(streamed, speech["alto"], atol=1e-4)
