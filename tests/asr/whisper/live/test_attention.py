"""Where a token was said is found although every token attends most to the same frame, and whatever follows it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loquent.asr.whisper.live.attention import TokenAttention

SAID = [10, 22, 31, 44, 58, 70]  # frames
SINK, AUDIO, WINDOW = 36, 80, 120


@pytest.fixture
def weights() -> Tensor:
    """Attention (heads, tokens, frames) that follows the audio a little, and falls on one frame and on the padding."""
    torch.manual_seed(0)
    weights = torch.rand(3, 4 + len(SAID), WINDOW) * 0.05
    for token, frame in enumerate(SAID, 4):  # behind four control tokens
        weights[:, token, frame - 3 : frame + 4] += 0.5
    weights[:, :, SINK - 3 : SINK + 4] += 2.0
    weights[:, :, AUDIO:] += 4.0 * torch.rand(3, len(weights[0]), 1)
    return weights / weights.sum(-1, keepdim=True)


def test_a_frame_to_which_all_tokens_attend_tells_nothing(weights: Tensor) -> None:
    assert weights.mean(0)[4:, :AUDIO].argmax(-1).tolist() != SAID
    found = TokenAttention(AUDIO)(weights, known=4)
    assert found.shape == (len(SAID), AUDIO)
    assert found.argmax(-1).sub(torch.tensor(SAID)).abs().max() <= 3


def test_one_token_after_another_gives_what_all_at_once_gives(weights: Tensor) -> None:
    whole = TokenAttention(AUDIO)(weights, known=4)
    attention = TokenAttention(AUDIO)
    pieces = [attention(weights[:, :6], known=4), *(attention(weights[:, i : i + 1]) for i in range(6, 10))]
    torch.testing.assert_close(torch.cat(pieces), whole)
    others = TokenAttention(AUDIO)(torch.cat([weights[:, :7], weights[:, 4:7]], 1), known=4)
    torch.testing.assert_close(others[:3], whole[:3])  # what follows changes nothing
