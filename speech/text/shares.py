"""A text shared out over several places, such as a translated sentence over the captions that it was said in."""

from __future__ import annotations

from collections.abc import Sequence

from loquent.speech.text.words import split_words

PAUSES = (",", ";", ":", ".", "!", "?", "…", "—", "，", "、", "。")
WORTH = 0.3  # of an average part: how far a cut moves to come after a mark


def shared_out(text: str, weights: Sequence[float]) -> list[str]:
    """Cut a text between words into consecutive parts that are about as long as the weights say.

    Cuts move a little to come after punctuation. A part of weight 0 is empty; others are only where there are fewer
    words than parts.

    Args:
        weights: one a part, 0 or more; all 0 is as if all were the last one's.

    Returns:
        The parts, each with the space before it: they join to the text, but for white space at its end.
    """
    parts = [""] * len(weights)
    used = [at for at, weight in enumerate(weights) if weight > 0] or [len(weights) - 1]
    words = split_words(text)
    ends = [0]
    for word in words:
        ends.append(ends[-1] + len(word))
    total = sum(weights[at] for at in used) or 1.0
    worth = WORTH * ends[-1] / len(used)
    least = len(words) >= len(used)  # words in a part
    begin, share = 0, 0.0
    for number, at in enumerate(used):
        share += weights[at] / total
        left = len(used) - 1 - number
        end = len(words)
        if left:
            ideal = share * ends[-1]
            places = range(begin + least, len(words) - least * left + 1)
            end = min(places, key=lambda place: (_cost(words, ends, place, ideal, worth), -place))
        parts[at] = "".join(words[begin:end])
        begin = end
    return parts


def _cost(words: Sequence[str], ends: Sequence[int], place: int, ideal: float, worth: float) -> float:
    marked = place > 0 and words[place - 1].rstrip("\"'”’»)").endswith(PAUSES)
    return abs(ends[place] - ideal) - (worth if marked else 0.0)
