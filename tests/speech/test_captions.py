"""Captions follow their formats to the letter: what is written reads back as what was said, whatever the text holds."""

import csv
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.captions import FORMATS, CaptionOptions, write
from loquent.speech.transcript import Segment, WordTiming

HELLO = Segment(
    0.5,
    2.25,
    " Hello there, world.",
    (
        WordTiming(" Hello", 0.5, 0.9, 0.98),
        WordTiming(" there,", 0.9, 1.2, 0.5),
        WordTiming(" world.", 1.75, 2.25),
    ),
)
LATE = Segment(360000.0, 363599.9996, "Über & <unter> --> 東京")


def written(format: str, segments: list[Segment], **options) -> str:
    file = io.StringIO(newline="\n")
    write(format, segments, file, CaptionOptions(**options))
    return file.getvalue()


def test_txt():
    assert written("txt", [HELLO, LATE]) == "Hello there, world.\nÜber & <unter> --> 東京\n"


def test_srt():
    assert written("srt", [HELLO, LATE]) == (
        "1\n00:00:00,500 --> 00:00:02,250\nHello there, world.\n\n"
        "2\n100:00:00,000 --> 101:00:00,000\nÜber & <unter> -> 東京\n\n"
    )


def test_vtt():
    assert written("vtt", [HELLO, LATE]) == (
        "WEBVTT\n\n"
        "00:00:00.500 --> 00:00:02.250\nHello there, world.\n\n"
        "100:00:00.000 --> 101:00:00.000\nÜber &amp; &lt;unter&gt; --&gt; 東京\n\n"
    )


def test_tsv():
    assert written("tsv", [HELLO, Segment(1, 2, "tab\there")]) == (
        "start\tend\ttext\n500\t2250\tHello there, world.\n1000\t2000\ttab here\n"
    )


def test_json_has_words_language_and_text():
    file = io.StringIO()
    write("json", [HELLO, LATE], file, language="en")
    got = json.loads(file.getvalue())
    assert got["language"] == "en"
    assert got["text"] == "Hello there, world. Über & <unter> --> 東京"
    assert got["segments"][0]["words"][0] == {"text": " Hello", "start": 0.5, "end": 0.9, "confidence": 0.98}
    assert got["segments"][1] == {"id": 1, "start": 360000.0, "end": 363599.9996, "text": LATE.text, "words": []}
    assert "東京" in file.getvalue()


def test_json_tells_how_a_segment_was_decoded_where_that_is_known():
    decoded = Segment(0, 1, " Hi", (), 3000, (50363, 15902, 50413), 0.0, -0.25, 0.75, 0.0)
    told, untold = json.loads(written("json", [decoded, HELLO]))["segments"]
    assert {name: told[name] for name in told if name not in untold} == {
        "seek": 3000,
        "tokens": [50363, 15902, 50413],
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 0.75,
        "no_speech_prob": 0.0,
    }
    assert untold.keys() == {"id", "start", "end", "text", "words"}


def test_no_segments_and_segments_without_text():
    silent = [Segment(0, 1, ""), Segment(1, 2, " \n ")]
    assert written("txt", silent) == ""
    assert written("srt", [*silent, HELLO]).startswith("1\n00:00:00,500")
    assert written("vtt", []) == "WEBVTT\n\n"
    assert written("tsv", silent) == "start\tend\ttext\n"
    assert json.loads(written("json", [])) == {"language": None, "segments": [], "text": ""}
    assert [s["id"] for s in json.loads(written("json", silent))["segments"]] == [0, 1]


def test_lines_are_wrapped_and_captions_split_at_word_times():
    assert written("srt", [HELLO], max_line_width=12) == ("1\n00:00:00,500 --> 00:00:02,250\nHello there,\nworld.\n\n")
    assert written("srt", [HELLO], max_line_width=12, max_line_count=1) == (
        "1\n00:00:00,500 --> 00:00:01,200\nHello there,\n\n2\n00:00:01,750 --> 00:00:02,250\nworld.\n\n"
    )
    assert written("vtt", [Segment(0, 1, "one two three")], max_line_width=3).endswith("one\ntwo\nthree\n\n")


def test_words_without_their_spaces_are_found_in_the_text():
    words = tuple(WordTiming(text, n, n + 1) for n, text in enumerate(("東", "京", "へ")))
    assert "東京\nへ" in written("srt", [Segment(0, 3, "東京へ", words)], max_line_width=2)
    words = tuple(WordTiming(text, n, n + 1) for n, text in enumerate(("to", "be", "or")))
    assert "to be\nor…" in written("srt", [Segment(0, 3, "to be or…", words)], max_line_width=5)
    words = tuple(WordTiming(text, n, n + 1) for n, text in enumerate(("to", " be", " or")))
    assert "to be\nor" in written("srt", [Segment(0, 3, "2 B or", words)], max_line_width=5)


def test_highlighted_words():
    assert written("vtt", [HELLO], highlight_words=True) == (
        "WEBVTT\n\n"
        "00:00:00.500 --> 00:00:00.900\n<u>Hello</u> there, world.\n\n"
        "00:00:00.900 --> 00:00:01.200\nHello <u>there,</u> world.\n\n"
        "00:00:01.200 --> 00:00:01.750\nHello there, world.\n\n"
        "00:00:01.750 --> 00:00:02.250\nHello there, <u>world.</u>\n\n"
    )


def timed(text: str, pauses: dict[int, float] | None = None) -> Segment:
    """A segment of words of 0.3 s, with pauses after some of them."""
    words, now = [], 0.0
    for number, piece in enumerate(re.findall(r"\s*\S+", text)):
        words.append(WordTiming(piece, now, now + 0.3))
        now += 0.3 + (pauses or {}).get(number, 0.0)
    return Segment(0.0, words[-1].end, text, tuple(words))


def captions_of(segment: Segment, **options) -> list[str]:
    return [text for _, _, text in parse("srt", written("srt", [segment], **options))]


def test_captions_end_with_sentences_before_pauses_and_where_they_are_full():
    said = "Mr. Babbage drew it. Ada wrote (in 1843!) what e.g. nobody had thought of… So it goes"
    parts = ["Mr. Babbage drew it.", "Ada wrote (in 1843!) what e.g. nobody had thought of…", "So it goes"]
    assert captions_of(timed(said)) == parts
    assert captions_of(timed("one two three four", {1: 1.2})) == ["one two", "three four"]
    assert captions_of(timed("one two three four", {1: 0.8})) == ["one two three four"]
    long = captions_of(timed("word " * 20 + "comma, " + "word " * 30))
    assert all(len(caption) <= 84 for caption in long)
    assert " ".join(long).split() == ["word"] * 20 + ["comma,"] + ["word"] * 30
    clauses = captions_of(timed("word " * 12 + "comma, " + "word " * 10))
    assert clauses[0].endswith("comma,")
    cues = parse("srt", written("srt", [timed(said)]))
    assert [start for start, _, _ in cues] == [0, 1200, 4200]


def test_words_in_a_caption_can_be_limited():
    assert captions_of(timed("one two three four five"), max_words_per_line=2) == ["one two", "three four", "five"]
    with pytest.raises(ValueError, match="max_words_per_line needs word times"):
        written("srt", [LATE], max_words_per_line=2)


def test_a_caption_lasts_at_least_a_millisecond():
    assert "00:00:01,000 --> 00:00:01,001" in written("srt", [Segment(1, 1, "now")])


def test_each_segment_is_out_before_the_next_comes():
    for name in FORMATS:
        file, seen = io.StringIO(), []

        def segments(file=file, seen=seen):
            for n in range(3):
                yield Segment(n, n + 1, f"word{n}")
                seen.append(f"word{n}" in file.getvalue())

        write(name, segments(), file)
        assert seen == [True] * 3


def test_json_is_closed_when_the_recording_breaks_off():
    def broken():
        yield HELLO
        raise OSError("microphone unplugged")

    file = io.StringIO()
    with pytest.raises(OSError, match="unplugged"):
        write("json", broken(), file)
    assert json.loads(file.getvalue())["text"] == "Hello there, world."


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match="unknown caption format 'doc'; expected one of txt, srt, vtt, tsv, json"):
        written("doc", [])
    with pytest.raises(ValueError, match="max_line_width of at least 1, got 0"):
        CaptionOptions(max_line_width=0)
    with pytest.raises(ValueError, match="max_line_count: counts lines"):
        CaptionOptions(max_line_count=2)
    with pytest.raises(ValueError, match="highlight_words needs word times"):
        written("srt", [LATE], highlight_words=True)
    with pytest.raises(ValueError, match="0 <= start <= end"):
        Segment(2, 1, "backwards")
    with pytest.raises(ValueError, match="got nan"):
        WordTiming("x", float("nan"), 1)


times = st.floats(0, 500000, allow_nan=False)
texts = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r\t\u2028<>&-\x00 \x0b\x85"), max_size=30
) | st.sampled_from(["a --> b", "1\n\n2", "<u>x</u>", "&amp;", "\r\n", "-->", "--->"])


@st.composite
def segment_lists(draw):
    segments = []
    for _ in range(draw(st.integers(0, 5))):
        start, length, text = draw(times), draw(st.floats(0.01, 100)), draw(texts)
        words, parts = [], re.findall(r"\s*\S+", text)
        for n, part in enumerate(parts):
            step = length / len(parts)
            words.append(WordTiming(part, start + n * step, start + n * step + step / 2))
        segments.append(Segment(start, start + length, text, tuple(words)))
    return segments


def squeezed(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f\x85]+", "", text)


def parse(format: str, text: str) -> list[tuple[int, int, str]]:
    """A strict reader of srt and vtt: (start ms, end ms, payload) a caption."""
    assert not text or text.endswith("\n\n")
    mark = "," if format == "srt" else r"\."
    time = rf"(\d{{2,}}):([0-5]\d):([0-5]\d){mark}(\d{{3}})"
    cues = []
    blocks = text[:-2].split("\n\n") if text.strip() else []
    if format == "vtt":
        assert blocks.pop(0) == "WEBVTT"
    for number, block in enumerate(blocks, 1):
        lines = block.split("\n")
        if format == "srt":
            assert lines.pop(0) == str(number)
        found = re.fullmatch(f"{time} --> {time}", lines[0])
        assert found, lines[0]
        h, m, s, ms, h2, m2, s2, ms2 = map(int, found.groups())
        assert lines[1:]
        assert all(line.strip() and "-->" not in line for line in lines[1:])
        start, end = ((h * 60 + m) * 60 + s) * 1000 + ms, ((h2 * 60 + m2) * 60 + s2) * 1000 + ms2
        cues.append((start, end, "\n".join(lines[1:])))
    return cues


def unescaped(text: str) -> str:
    assert not re.search(r"<(?!/?u>)|&(?!amp;|lt;|gt;)", text)
    return re.sub("</?u>", "", text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@settings(max_examples=80, deadline=None)
@given(segment_lists(), st.none() | st.integers(1, 20), st.none() | st.integers(1, 3), st.booleans())
def test_vtt_reads_back(segments, width, count, highlight):
    options = {"max_line_width": width, "max_line_count": count if width else None, "highlight_words": highlight}
    cues = parse("vtt", written("vtt", segments, **options))
    assert all(start < end for start, end, _ in cues)
    spoken = [squeezed(segment.text) for segment in segments if squeezed(segment.text)]
    if not highlight:
        assert "".join(squeezed(unescaped(text)) for _, _, text in cues) == "".join(spoken)
    else:
        marked = [mark for _, _, text in cues for mark in re.findall("<u>(.*?)</u>", text)]
        assert "".join(squeezed(unescaped(text)) for text in marked) == "".join(spoken)
    if count is None or width is None:
        starts = [round(segment.start * 1000) for segment in segments if squeezed(segment.text)]
        assert len(cues) >= len(starts)
        assert set(starts) <= {start for start, _, _ in cues}


@pytest.mark.parametrize("at", [0, 1])
def test_a_word_that_cannot_be_seen_gets_no_caption(at):
    """A pause before it, or after it, would make one of its own."""
    texts = ["\x1b", " 0"] if at == 0 else ["0", " \x1b"]
    words = tuple(WordTiming(text, 2.0 * n, 2.0 * n + 1) for n, text in enumerate(texts))
    (cue,) = parse("srt", written("srt", [Segment(0.0, 4.0, "".join(texts), words)]))
    assert cue == (0, 4000, "0")


@settings(max_examples=80, deadline=None)
@given(segment_lists(), st.none() | st.integers(1, 20))
def test_srt_reads_back(segments, width):
    cues = parse("srt", written("srt", segments, max_line_width=width))
    spoken = [s for s in segments if squeezed(s.text)]
    assert {round(s.start * 1000) for s in spoken} <= {start for start, _, _ in cues}
    assert {round(s.end * 1000) for s in spoken} <= {end for _, end, _ in cues}
    arrowless = re.sub("-+>", "->", squeezed("".join(s.text for s in spoken)))
    assert re.sub("-+>", "->", squeezed("".join(text for _, _, text in cues))) == arrowless


@settings(max_examples=80, deadline=None)
@given(segment_lists())
def test_tsv_json_and_txt_read_back(segments):
    spoken = [s for s in segments if squeezed(s.text)]
    lines = written("tsv", segments).split("\n")
    rows = list(csv.reader(lines[1:-1], delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [(int(a), int(b)) for a, b, _ in rows] == [(round(s.start * 1000), round(s.end * 1000)) for s in spoken]
    assert [squeezed(text) for _, _, text in rows] == [squeezed(s.text) for s in spoken]
    got = json.loads(written("json", segments))
    assert [(s["start"], s["end"], s["text"]) for s in got["segments"]] == [(s.start, s.end, s.text) for s in segments]
    assert [len(s["words"]) for s in got["segments"]] == [len(s.words) for s in segments]
    assert list(map(squeezed, written("txt", segments).split("\n")[:-1])) == [squeezed(s.text) for s in spoken]
