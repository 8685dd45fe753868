"""Captions of others are read and written again with other texts; what is no text stays."""

import io

import pytest

from loquent.speech.runtime.events import Translation
from loquent.speech.subtitles import SubtitleError, read_subtitles, write_subtitles
from loquent.speech.whole_sentences import divided, groups, joined

SRT = """1
00:00:01,000 --> 00:00:02,500
{\\an8}<i>One text
in two lines.</i>

2
00:00:03,000 --> 00:00:04,000 X1:10
- Who is <b>it</b>?
- Me & <you>.

"""
VTT = """WEBVTT - a title

NOTE nothing

intro
00:01.000 --> 00:02.500 align:start
<v Ada>Tom &amp; Jerry &lt;3

01:00:03.000 --> 01:00:04.000
2 --&gt; 3

"""


def again(text, source, format):
    subtitles = read_subtitles(text, source)
    cues = [cue.saying([voice.text.upper() for voice in cue.voices]) for cue in subtitles.cues]
    file = io.StringIO()
    write_subtitles(subtitles.with_cues(cues), format, file)
    return file.getvalue()


def test_subrip_keeps_times_settings_marks_and_voices():
    assert again(SRT, "srt", "srt") == (
        "1\n00:00:01,000 --> 00:00:02,500\n{\\an8}<i>ONE TEXT IN TWO LINES.</i>\n\n"
        "2\n00:00:03,000 --> 00:00:04,000 X1:10\n- WHO IS IT?\n- ME & <YOU>.\n\n"
    )


def test_webvtt_keeps_header_notes_names_and_escapes():
    assert again(VTT, "vtt", "vtt") == (
        "WEBVTT - a title\n\nNOTE nothing\n\nintro\n00:00:01.000 --> 00:00:02.500 align:start\n"
        "<v Ada>TOM &amp; JERRY &lt;3\n\n01:00:03.000 --> 01:00:04.000\n2 --&gt; 3\n\n"
    )


def test_one_format_becomes_the_other():
    assert again(SRT, "srt", "vtt") == (
        "WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.500\n<i>ONE TEXT IN TWO LINES.</i>\n\n"
        "2\n00:00:03.000 --> 00:00:04.000\n- WHO IS IT?\n- ME &amp; &lt;YOU&gt;.\n\n"
    )
    assert again(VTT, "vtt", "srt") == (
        "1\n00:00:01,000 --> 00:00:02,500\nTOM & JERRY <3\n\n2\n01:00:03,000 --> 01:00:04,000\n2 -> 3\n\n"
    )


def test_empty_lines_within_a_text_lose_nothing():
    odd = "1\r\n00:00:01,000 --> 00:00:02,000\r\nfirst\r\n\r\nsecond\r\n\r\n00:00:03.5 --> 00:00:04,000\r\nthird"
    texts = [voice.text for cue in read_subtitles(odd, "srt").cues for voice in cue.voices]
    assert texts == ["first second", "third"]
    assert read_subtitles(" \n\n", "srt").blocks == ()


def test_long_texts_get_lines_of_about_the_same_length():
    text = "1\n00:00:01,000 --> 00:00:02,000\n" + "word " * 16
    lines = again(text, "srt", "srt").splitlines()[2:4]
    assert [len(line) for line in lines] == [39, 39]


@pytest.mark.parametrize(
    ("text", "format", "reason"),
    [
        ("hello there", "srt", "line 1 is no SubRip: expected a number and times such as .* got 'hello there'"),
        ("hello\n1\n00:00:01,000 --> 00:00:02,000\nx", "srt", "line 1 is no SubRip"),
        ("1\n00:00:05,000 --> 00:00:02,000\nx", "srt", "line 2: the caption ends before it begins"),
        ("1\n00:00:01,000 --> 00:00:02,000\nx", "vtt", "line 1 is no WebVTT: expected WEBVTT, got '1'"),
        ("WEBVTT\n\n00:01 --> 00:02\nx", "vtt", "line 3: expected times such as"),
    ],
)
def test_what_is_wrong_is_told(text, format, reason):
    with pytest.raises(SubtitleError, match=reason):
        read_subtitles(text, format)


def test_sentences_are_put_together_and_divided_again():
    srt = "".join(
        f"{n}\n00:00:{begin:02d},000 --> 00:00:{begin + 1:02d},000\n{text}\n\n"
        for n, (begin, text) in enumerate(
            [(1, "I would like"), (2, "a cup. And"), (3, "tea."), (4, "[Music]"), (5, "Not now"), (9, "later")], 1
        )
    )
    pieces = [piece for cue in read_subtitles(srt, "srt").cues for piece in cue.pieces()]
    assert [[piece.text for piece in group] for group in groups(pieces)] == [
        ["I would like", "a cup. And", "tea."],
        ["[Music]"],
        ["Not now"],
        ["later"],
    ]
    texts = ["I would like", "a cup. And", "tea."]
    assert joined(texts) == "I would like a cup. And tea."
    events = [Translation(text=" Quisiera una taza.", span=(0, 19)), Translation(text=" Y té.", span=(19, 28))]
    assert divided(texts, events) == ["Quisiera una", "taza. Y", "té."]
    more = Translation(text=" Fin", span=(28, 28))  # stands for nothing
    assert divided(texts, [*events, more])[-1] == "té. Fin"
