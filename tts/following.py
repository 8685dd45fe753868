"""Speech that keeps to the clock of its text, as that of an interpreter does.

Text tells the time in the source that it stands for (`Text.time_s`). A voice that follows says nothing before its time:
second t of its speech is heard at second t of the source, or later. Where the text makes it wait, `Speech` events leave
a gap between them, at the end of a word. Where it is late because there was more to say, it hurries. No wall clock is
read and no text is left out, so what is said, and when, depends on the text and on its times alone.
"""

from __future__ import annotations

from dataclasses import replace

from loquent.tts.memo import SpeechMemo


def look_at_clock(memo: SpeechMemo, time_s: float, made: int, sample_rate: int) -> None:
    """Take note of the time of a word that was read, and of how late the voice is.

    Words that have one time are late together: it is the speech of those before them that makes them wait.

    Args:
        made: sample at which the speech of the words before it ends, as far as they could be spoken.
    """
    if memo.options.follow and time_s > memo.time_s:
        memo.time_s, memo.lag_s = time_s, max(0.0, made / sample_rate - time_s)


def holds(memo: SpeechMemo) -> bool:
    """Whether an utterance is not begun yet because there is too little text for it."""
    begun = memo.at or memo.rendered or memo.trimmed
    return memo.options.follow and not begun and memo.time_s - memo.since_s < memo.options.hold_s


def pace(memo: SpeechMemo) -> float:
    """Factor of tempo by which the voice hurries: 1 up to half of ``most_lag_s``, ``fastest`` from all of it on."""
    if not memo.options.follow:
        return 1.0
    late = 2 * memo.lag_s / memo.options.most_lag_s - 1
    return 1 + (memo.options.fastest - 1) * min(max(late, 0.0), 1.0)


def frames_to_word_end(memo: SpeechMemo, lookahead: int, hop_length: int) -> int:
    """Frames of the queue after which the renderer has given out a whole word, the last one that can be given so.

    A voice that has to wait for text waits there, and not within a word.

    Args:
        lookahead: frames behind one that the renderer has to know, to give it out.
    """
    made = memo.frame + memo.queued - lookahead
    ends = [(piece.last - memo.offset) // hop_length for piece in memo.said[len(memo.said) - memo.opened :]]
    last = max((end for end in ends if end <= made), default=-1)
    return max(0, last + lookahead - memo.frame) if last >= 0 else 0


def wait_for_clock(memo: SpeechMemo, sample_rate: int) -> None:
    """Leave a gap before the samples that come next, if their time has not come."""
    now = memo.samples
    gap = round(memo.time_s * sample_rate) - now
    if not memo.options.follow or gap <= 0:
        return
    memo.said = [
        replace(one, first=one.first + gap * (one.first >= now), last=one.last + gap) if one.last > now else one
        for one in memo.said
    ]
    memo.offset, memo.samples = memo.offset + gap, now + gap
