"""The voice hibari as a model: windows to acoustics, and frames to samples, chunk by chunk."""

import pytest
import torch

from loquent.tts.acoustics import PhoneWindow
from loquent.tts.hibari.config import ALPHABET, DecoderConfig, HibariConfig
from loquent.tts.hibari.decoder import Decoder
from loquent.tts.hibari.voice import HibariVoice

SENTENCE = "ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˌOvəɹ ðə lˈAzi dˈɔɡ."
PHONES = [ALPHABET[phone] for phone in SENTENCE]


def frames_of(sound):
    return torch.cat([sound.phones.repeat_interleave(sound.durations, 0), sound.curves], dim=1)


def whole(voice, phones=PHONES, **options):
    return voice.acoustics([PhoneWindow(phones, 0, len(phones), True, True, **options)])[0]


def test_a_sentence_has_a_phone_of_silence_at_either_end(small_voice):
    sound = whole(small_voice)
    assert sound.phones.shape == (len(PHONES) + 2, small_voice.phone_size)
    assert sound.durations.shape == (len(PHONES) + 2,)
    assert sound.durations.dtype == torch.long
    assert sound.curves.shape == (int(sound.durations.sum()), small_voice.curve_size)
    assert sound.durations.min() >= 2
    assert sound.durations.max() <= 80
    assert not (sound.durations % 2).any(), "durations are rounded to 25 ms"
    assert len(sound.durations.unique()) > 5


@pytest.mark.parametrize(("opens", "closes"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_word_is_cut_out_of_its_window(small_voice, opens, closes):
    full = whole(small_voice)
    ends = full.durations.cumsum(0)
    n = len(PHONES)
    for begin, end in ((0, 3), (3, 9), (9, n), (0, n), (5, 6)):
        (got,) = small_voice.acoustics([PhoneWindow(PHONES, begin, end, opens, closes)])
        first = 0 if opens and begin == 0 else begin + 1
        last = n + 2 if closes and end == n else end + 1
        assert torch.equal(got.phones, full.phones[first:last])
        assert torch.equal(got.durations, full.durations[first:last])
        curves = full.curves[int(ends[first - 1]) if first else 0 : int(ends[last - 1])]
        torch.testing.assert_close(got.curves, curves, rtol=1e-4, atol=1e-4)


def test_nothing_to_speak_is_silence_or_nothing(small_voice):
    inside, alone = small_voice.acoustics([PhoneWindow(PHONES, 4, 4, False, False), PhoneWindow([], 0, 0, True, True)])
    assert (inside.phones.shape, inside.durations.shape, inside.curves.shape) == ((0, 8), (0,), (0, 2))
    assert alone.durations.shape == (2,)
    assert alone.curves.shape == (int(alone.durations.sum()), 2)


def test_a_result_is_the_same_bits_whatever_is_asked_for_beside_it(small_voice):
    windows = [
        PhoneWindow(PHONES, 3, 9, True, False),
        PhoneWindow(PHONES, 9, 17, True, False),
        PhoneWindow(PHONES[:20], 3, 9, True, False),
        PhoneWindow(PHONES[5:25], 3, 9, False, True, speed=1.3),
    ]
    alone = [small_voice.acoustics([window])[0] for window in windows]
    for together in (small_voice.acoustics(windows), small_voice.acoustics(windows[::-1])[::-1]):
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a.phones, b.phones)
            assert torch.equal(a.durations, b.durations)
            assert torch.equal(a.curves, b.curves)
    assert not torch.equal(alone[0].phones, alone[2].phones), "the window is heard"


def test_speed_divides_durations_before_they_are_rounded(small_voice):
    usual, fast, fastest = (whole(small_voice, speed=speed) for speed in (1.0, 2.0, 1000.0))
    assert ((fast.durations - usual.durations / 2).abs() <= 3).all()
    assert (fast.durations != (usual.durations / 2).round()).any()
    assert (fastest.durations == 2).all(), "a phone has one unit at least"
    assert (whole(small_voice, speed=0.001).durations == 80).all(), "and forty at most"


def test_the_renderer_obeys_the_laws(small_voice, check_streaming):
    renderer = small_voice.renderer
    assert renderer.latency == 3 * 3 + 2
    sounds = [frames_of(whole(small_voice, PHONES[first : first + 12]))[:40] for first in (0, 7)]
    check_streaming(renderer, torch.stack(sounds), rtol=0, atol=3e-5, examples=6)


def test_the_decoder_looks_ahead_27_frames():
    decoder = Decoder(DecoderConfig())
    assert (decoder.latency, decoder.stride) == (27, 1)
    voice = HibariVoice(HibariConfig())
    assert (voice.renderer.latency, voice.renderer.inputs_for(300)) == (29, 30)


@pytest.mark.parametrize("size", [1, 7, 20, 40])
def test_hibari_in_chunks_is_hibari_as_a_whole(hibari_voice, size):
    x = frames_of(whole(hibari_voice))[None]
    renderer = hibari_voice.renderer
    with torch.inference_mode():
        expected = renderer(x)[0]
        assert expected.shape == (x.shape[1] * 300,)
        assert 0.1 < expected.abs().max() < 1
        state = renderer.initial_state(1)
        parts = x.split(size, dim=1)
        got = torch.cat([renderer.step(part, state, last=part is parts[-1]).data[0] for part in parts])
    torch.testing.assert_close(got, expected, rtol=0, atol=3e-5)
