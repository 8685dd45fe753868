"""Short-time Fourier transforms of streams against torch's of the whole signal."""

import pytest
import torch

from loquent.tts.vocoder.inverse_stft import InverseSTFT
from loquent.tts.vocoder.stft import STFT

SIZES = pytest.mark.parametrize(("n_fft", "hop"), [(16, 4), (1200, 300), (12, 3), (8, 4)])
FINAL = pytest.mark.parametrize("final", [False, True])
HAMMING = torch.hamming_window(16, periodic=False)  # begins with no zero


@SIZES
@FINAL
def test_frames_are_those_of_torch(n_fft, hop, final):
    x = torch.randn(2, 7 * hop)
    expected = torch.stft(x, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True).transpose(1, 2)
    assert expected.shape[1] == 8
    torch.testing.assert_close(STFT(n_fft, hop, final_frame=final)(x), expected[:, : 7 + final])


def test_any_window_and_any_length():
    x = torch.randn(1, 42)
    expected = torch.stft(x, 16, 4, window=HAMMING, return_complex=True).transpose(1, 2)
    torch.testing.assert_close(STFT(16, 4, HAMMING, final_frame=True)(x), expected)
    torch.testing.assert_close(STFT(16, 4, HAMMING)(x), expected[:, :10])


@SIZES
@FINAL
def test_samples_are_those_of_torch(n_fft, hop, final):
    spectrum = torch.randn(2, 7, n_fft // 2 + 1, dtype=torch.complex64)
    spectrum[..., [0, -1]] = spectrum[..., [0, -1]].real.to(torch.complex64)
    length = (7 - final) * hop
    expected = torch.istft(spectrum.transpose(1, 2), n_fft, hop, window=torch.hann_window(n_fft), length=length)
    got = InverseSTFT(n_fft, hop, final_frame=final)(spectrum)
    assert got.shape == (2, length)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_there_and_back_is_nowhere():
    x = torch.randn(2, 40)
    torch.testing.assert_close(InverseSTFT(16, 4, final_frame=True)(STFT(16, 4, final_frame=True)(x)), x)
    torch.testing.assert_close(InverseSTFT(16, 4, HAMMING)(STFT(16, 4, HAMMING)(x)), x, rtol=1e-4, atol=1e-5)


@FINAL
@pytest.mark.parametrize("window", [None, HAMMING], ids=["hann", "hamming"])
def test_both_stream(check_streaming, final, window):
    forward, inverse = STFT(16, 4, window, final_frame=final), InverseSTFT(16, 4, window, final_frame=final)
    assert inverse.latency == 2
    assert forward.inputs_for(10) == 9 * 4 + 8
    check_streaming(forward, torch.randn(3, 64), shortest=9)
    spectrum = torch.randn(3, 20, 9, dtype=torch.complex64)
    spectrum[..., [0, -1]] = spectrum[..., [0, -1]].real.to(torch.complex64)
    check_streaming(inverse, spectrum)


def test_a_short_stream_has_its_frames_and_samples():
    for hops in (0, 1, 2, 3):
        spectrum = STFT(1200, 300)(torch.randn(1, 300 * hops))
        assert spectrum.shape == (1, hops, 601)
        assert InverseSTFT(1200, 300)(spectrum).shape == (1, 300 * hops)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="n_fft=15"):
        STFT(15, 4)
    with pytest.raises(ValueError, match="hop=9"):
        STFT(16, 9)
    with pytest.raises(ValueError, match=r"window of shape \(8,\)"):
        STFT(16, 4, torch.ones(8))
    with pytest.raises(ValueError, match="multiple of 2"):
        InverseSTFT(12, 4)
