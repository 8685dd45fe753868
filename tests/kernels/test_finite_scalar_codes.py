"""Codes against their equation; the quantiser is tested in tests/tts/tokens."""

import torch

from loquent.kernels.finite_scalar import Digits, finite_scalar_codes


def test_codes_have_the_digits_of_their_numbers():
    digits = Digits(torch.zeros(2), torch.full((2,), 0.999), torch.zeros(2), torch.ones(2), torch.tensor([1, 3]))
    x = torch.tensor([[5.0, 0.0], [-5.0, 0.1], [0.2, 5.0], [5.0, 5.0]])
    assert finite_scalar_codes(x, torch.eye(2), torch.zeros(2), digits).tolist() == [5, 3, 7, 8]
    assert finite_scalar_codes(x[None], torch.eye(2), torch.tensor([0.0, -5.0]), digits).tolist() == [[2, 0, 4, 5]]
    assert finite_scalar_codes(x[:0], torch.eye(2), torch.zeros(2), digits).shape == (0,)
