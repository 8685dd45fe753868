"""The recurrence of an LSTM against `torch.nn.LSTM`."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from loquent.kernels.lstm_steps import lstm_steps


def test_it_is_the_recurrence_of_torch():
    lstm, x = nn.LSTM(6, 5, batch_first=True), torch.randn(3, 7, 6)
    hidden, cell = torch.randn(2, 3, 5)
    with torch.no_grad():
        gates = F.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
        y, h, c = lstm_steps(gates, lstm.weight_hh_l0, hidden, cell, torch.full((3,), 7))
        expected, (last, cells) = lstm(x, (hidden[None], cell[None]))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(h, last[0])
    torch.testing.assert_close(c, cells[0])


def test_steps_beyond_a_length_change_nothing():
    gates, weight = torch.randn(2, 4, 20), torch.randn(20, 5)
    hidden, cell = torch.randn(2, 2, 5)
    gates[0, 2:] = gates[1] = math.nan
    y, h, c = lstm_steps(gates, weight, hidden, cell, torch.tensor([2, 0]))
    short = lstm_steps(gates[:1, :2], weight, hidden[:1], cell[:1], torch.tensor([2]))
    torch.testing.assert_close(y[:1, :2], short[0])
    assert torch.equal(y[0, 2:], h[:1].expand(2, -1))
    torch.testing.assert_close(c[:1], short[2])
    assert torch.equal(h[1], hidden[1])
    assert torch.equal(c[1], cell[1])


def test_no_steps_leave_the_state_as_it_is():
    hidden, cell = torch.randn(2, 2, 5)
    y, h, c = lstm_steps(torch.zeros(2, 0, 20), torch.randn(20, 5), hidden, cell, torch.zeros(2, dtype=torch.long))
    assert y.shape == (2, 0, 5)
    assert torch.equal(h, hidden)
    assert torch.equal(c, cell)
