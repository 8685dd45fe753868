"""Whisper's tokens: text, control tokens, timestamps, and where words begin and end.

Whisper's text vocabulary is GPT-2's byte-level one (English-only models) or a multilingual one of the same kind; the
control tokens follow it in an order that never changes, then the timestamps. Ids below `eot` are pieces of UTF-8, which
need not end where a character ends. Fine-tuned models may have more tokens after the timestamps: words, or control
tokens of their own. The reference is `whisper/tokenizer.py` of openai/whisper.
"""

from __future__ import annotations

import codecs
import string
from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from loquent.asr.options import Mode
from loquent.asr.whisper.vocabulary import complete_merges, read_vocabulary
from loquent.speech.text.languages import LANGUAGES, SPACELESS_LANGUAGES, language_code

TIMESTAMP_STEP_S = 0.02
N_TIMESTAMPS = 1501  # 0.00 to 30.00 s
_GPT2_EOT = 50256  # the end-of-text id of the English-only models, and of no multilingual one


class WhisperTokenizer:
    """Converts between text and Whisper's token ids. Immutable, so one serves any number of streams and threads.

    Text given to `encode` is always plain text: "<|endoftext|>" typed by a user never becomes a control token.

    Attributes:
        eot: end of transcript; the ids below it are text.
        sot: start of transcript.
        translate, transcribe: the task tokens.
        sot_lm: start of a text without audio; never produced.
        sot_prev: precedes the text of the previous segment.
        no_speech: its probability right after `sot` is that of the window holding no speech.
        no_timestamps: asks for text without timestamps.
        timestamp_begin: 0.00 s; each id above it is 0.02 s later, up to 30 s.
        timestamp_end: one more than the id of 30 s; tokens that were added to Whisper's begin here.
        text_end: one more than the last id of text; `eot`, unless text tokens were added.
        n_vocab: number of ids; equals `WhisperConfig.n_vocab` of the model it belongs to.
        num_languages: number of language tokens.
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: list[tuple[str, str]] | None = None,
        special: Collection[str] = (),
    ) -> None:
        """Build from a byte-level vocabulary; `load` reads one from files.

        Args:
            vocabulary: token -> id, control tokens included, timestamps or not; text tokens are byte-level, as in
                GPT-2, and numbered in the order in which they were merged. Those after the timestamps are plain text.
            merges: the pairs that text tokens are merged from, most frequent first; what is missing follows from the
                vocabulary.
            special: tokens after the timestamps that are control tokens; those written "<|…|>" are anyway.

        Raises:
            ValueError: control tokens are missing or not laid out as in Whisper, or text tokens are not byte-level.
        """
        self.eot, self.sot, self.translate, self.no_timestamps = _anchors(vocabulary)
        self.num_languages = self.translate - self.sot - 1
        self.transcribe = self.translate + 1
        self.sot_lm = self.translate + 2
        self.sot_prev = self.translate + 3
        self.no_speech = self.translate + 4
        self.timestamp_begin = self.no_timestamps + 1
        self.timestamp_end = self.timestamp_begin + N_TIMESTAMPS
        text_tokens = {token: id_ for token, id_ in vocabulary.items() if id_ < self.eot}
        self._bytes = dict(enumerate(_token_bytes(text_tokens, self.eot)))
        self._added = {id_: token for token, id_ in vocabulary.items() if id_ >= self.timestamp_end}
        self._bytes |= {
            id_: token.encode() for id_, token in self._added.items() if token not in special and not _is_control(token)
        }
        self.text_end = max(self._bytes) + 1
        self.n_vocab = max(self._added, default=self.timestamp_end - 1) + 1
        for token, id_ in vocabulary.items():
            if self.timestamp_begin <= id_ < self.timestamp_end and token != self.special_name(id_):
                raise ValueError(
                    f"token {token!r} is at {id_}, where Whisper has the timestamp {self.special_name(id_)}; a model "
                    "that was trained without timestamps in its vocabulary cannot be loaded"
                )
        # Made of the text tokens alone, so that no text is ever read as a control token.
        self._bpe = Tokenizer(models.BPE(text_tokens, complete_merges(text_tokens, merges or [])))
        self._bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)

    @classmethod
    def load(cls, path: str | Path) -> WhisperTokenizer:
        """Read the tokenizer of a model folder, or a `tokenizer.json` by itself.

        The folder holds `tokenizer.json`, or `vocab.json` with `merges.txt` (Hugging Face), or `vocabulary.json` or
        `vocabulary.txt` (CTranslate2); the first of these is read.

        Raises:
            FileNotFoundError: the folder has none of them.
            ValueError: the files are not those of a Whisper tokenizer.
        """
        files = read_vocabulary(Path(path))
        try:
            return cls(files.ids, files.merges, files.special)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def check_model(self, n_vocab: int) -> None:
        """Make sure that a model has this vocabulary.

        Args:
            n_vocab: number of tokens of the model.

        Raises:
            ValueError: it has another number of them.
        """
        if n_vocab != self.n_vocab:
            raise ValueError(
                f"the model has {n_vocab} tokens and the tokenizer {self.n_vocab}, so they belong to different models; "
                "put the tokenizer files of the model itself beside its weights"
            )

    # ------------------------------------------------------------------------------------------------ languages, tasks

    @property
    def is_multilingual(self) -> bool:
        """Whether the vocabulary belongs to a model that knows languages other than English, and translation."""
        return self.eot != _GPT2_EOT

    @cached_property
    def languages(self) -> dict[str, str]:
        """Code -> English name of the languages the model knows; English alone for English-only models."""
        return dict(list(LANGUAGES.items())[: self.num_languages if self.is_multilingual else 1])

    @cached_property
    def language_tokens(self) -> dict[str, int]:
        """Code -> token of every language; empty for English-only models, which were never trained on theirs."""
        return {code: self.sot + 1 + i for i, code in enumerate(self.languages)} if self.is_multilingual else {}

    def language_token(self, language: str) -> int:
        """The token of a language, given by code or English name; raises ValueError if the model has none for it."""
        code = language_code(language)
        if code not in self.language_tokens:
            known = f"{self.num_languages} languages without it" if self.is_multilingual else "English only"
            raise ValueError(f"no token for language {language!r}: this vocabulary is for {known}")
        return self.language_tokens[code]

    def sot_sequence(
        self, language: str = "en", mode: Mode = "transcribe", *, timestamps: bool = True
    ) -> tuple[int, ...]:
        """The control tokens that open a transcript.

        Args:
            language: code or English name of the language spoken.
            mode: write what is said in that language, or in English.
            timestamps: let the model write timestamps between the text.

        Returns:
            For multilingual models (sot, language, task), for English-only ones (sot,); then `no_timestamps` if wanted.

        Raises:
            ValueError: the model knows no such language or mode.
        """
        if mode not in ("transcribe", "translate"):
            raise ValueError(f"mode is {mode!r}, expected 'transcribe' or 'translate'")
        sequence = [self.sot]
        if self.is_multilingual:
            sequence += [self.language_token(language), self.transcribe if mode == "transcribe" else self.translate]
        elif language_code(language) != "en" or mode != "transcribe":
            raise ValueError(f"an English-only model cannot {mode} {language!r}; use a multilingual one")
        return tuple(sequence if timestamps else [*sequence, self.no_timestamps])

    # -------------------------------------------------------------------------------------------------- text and tokens

    def encode(self, text: str) -> list[int]:
        """Text tokens of a text; control and added tokens are never among them, whatever the text says."""
        return self._bpe.encode(text, add_special_tokens=False).ids

    def is_text(self, token: int) -> bool:
        """Whether a token stands for text: no control token, and no timestamp."""
        return token in self._bytes

    def is_timestamp(self, token: int) -> bool:
        """Whether a token stands for a time."""
        return self.timestamp_begin <= token < self.timestamp_end

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens, leaving out control tokens and timestamps; broken UTF-8 becomes U+FFFD."""
        return self._joined(tokens).decode("utf-8", "replace")

    def spelled(self, token: int) -> bytes:
        """The bytes of a text token, which need not be whole characters; none of a control token or timestamp."""
        return self._bytes.get(token, b"")

    def decode_stream(self, tokens: Iterable[int], pending: bytes = b"", *, last: bool = False) -> tuple[str, bytes]:
        """The text that more tokens complete, holding back a character until its last byte has come.

        The texts returned for any partition of a token sequence add up to `decode` of the whole.

        Args:
            tokens: the tokens that follow those given before; control tokens and timestamps are left out.
            pending: what the call before returned; empty at the start. It is the whole state, 0 to 3 bytes.
            last: no more tokens will come; a broken character at the end then becomes U+FFFD.

        Returns:
            The text, and the bytes of an incomplete character to pass to the next call.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(pending + self._joined(tokens), last)
        return text, decoder.getstate()[0]

    def decode_with_timestamps(self, tokens: Iterable[int]) -> str:
        """The text of the tokens with control tokens and timestamps written out, as in "<|1.08|> Hello"."""
        return "".join(text for text, _ in self._split_at_characters(tokens))

    def special_name(self, token: int) -> str:
        """How a control token or timestamp is written, such as "<|en|>" or "<|1.08|>"; ValueError for other ids."""
        if token >= self.n_vocab or self.is_text(token):
            raise ValueError(f"token {token} is not a control token; expected {self.eot} to {self.n_vocab - 1}")
        if token >= self.timestamp_end:
            return self._added.get(token, f"<|unused {token}|>")
        if token >= self.timestamp_begin:
            return f"<|{self.timestamp_s(token):.2f}|>"
        if self.sot < token < self.translate:
            return f"<|{list(LANGUAGES)[token - self.sot - 1]}|>"
        if token < self.translate:
            return "<|endoftext|>" if token == self.eot else "<|startoftranscript|>"
        names = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
        return f"<|{names[token - self.translate]}|>"

    # ------------------------------------------------------------------------------------------------------- timestamps

    def timestamp_s(self, token: int) -> float:
        """Seconds from the start of the window that a timestamp token stands for."""
        return round((token - self.timestamp_begin) * TIMESTAMP_STEP_S, 2)

    # ------------------------------------------------------------------------------------------- what not to be written

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """Tokens of what is written but not said: speaker tags, "(LAUGHTER)", musical notes; not usual punctuation.

        Some are first tokens of a symbol that takes several: musical notes share two of their three bytes with other
        symbols of U+2640 to U+267F, of which none is speech. Hyphen and apostrophe only count at the start of a word.
        """
        notes = list("♩♪♫♬♭♮♯")
        symbols = list('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
        symbols += ["<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "♪♪", "♪♪♪"]
        symbols += ["((", "))", "(((", ")))", "[[", "]]", "{{", "}}"]
        found = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in symbols + notes:
            for tokens in (self.encode(symbol), self.encode(" " + symbol)):
                if len(tokens) == 1 or symbol in notes:
                    found.add(tokens[0])
        return tuple(sorted(found))

    @cached_property
    def control_tokens(self) -> tuple[int, ...]:
        """The control tokens that a transcript cannot contain, and added tokens that are no text."""
        added = [token for token in range(self.timestamp_end, self.n_vocab) if not self.is_text(token)]
        return (self.sot, self.translate, self.transcribe, self.sot_lm, self.sot_prev, self.no_speech, *added)

    @cached_property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """`non_speech_tokens` and `control_tokens`."""
        return tuple(sorted({*self.non_speech_tokens, *self.control_tokens}))

    @cached_property
    def blank_tokens(self) -> tuple[int, ...]:
        """Tokens that may not come first in a transcript: a lone space, and its end."""
        return (*self.encode(" "), self.eot)

    # ------------------------------------------------------------------------------------------------------------ words

    def is_word_start(self, token: int, language: str = "en") -> bool:
        """Whether a token can only begin a new word, so that the word before it is complete.

        That is so for control tokens and timestamps, for tokens that begin with a space, and in languages written
        without spaces for every token that does not go on with a character begun before.
        """
        if not self.is_text(token):
            return True
        first = self._bytes[token][:1]
        return first == b" " or (language in SPACELESS_LANGUAGES and (first < b"\x80" or first >= b"\xc0"))

    def split_to_word_tokens(self, tokens: Iterable[int], language: str = "en") -> list[tuple[str, list[int]]]:
        """Split tokens into words, each with its leading space and its tokens.

        Words are split at spaces and punctuation, and in languages written without spaces wherever tokens end on a
        whole character. Control tokens and timestamps are words of their own. No token is lost: the words' tokens
        concatenate to `tokens` and their texts to `decode_with_timestamps(tokens)`.
        """
        pieces = self._split_at_characters(tokens)
        if language in SPACELESS_LANGUAGES:
            return pieces
        words: list[tuple[str, list[int]]] = []
        after_special = True
        for text, piece in pieces:
            special = not self.is_text(piece[0])
            # A piece of white space alone also counts as punctuation, as it does in openai/whisper.
            if special or after_special or text.startswith(" ") or text.strip() in string.punctuation:
                words.append((text, piece))
            else:
                words[-1] = (words[-1][0] + text, words[-1][1] + piece)
            after_special = special
        return words

    def _joined(self, tokens: Iterable[int]) -> bytes:
        return b"".join(self._bytes[token] for token in tokens if token in self._bytes)

    def _split_at_characters(self, tokens: Iterable[int]) -> list[tuple[str, list[int]]]:
        """The smallest runs of tokens that hold whole characters, with their text; each control token is a run."""
        runs: list[tuple[str, list[int]]] = []
        run: list[int] = []
        text, pending = "", b""
        for token in tokens:
            if not self.is_text(token):
                if run:
                    runs.append((text + self.decode_stream((), pending, last=True)[0], run))
                    text, run, pending = "", [], b""
                runs.append((self.special_name(token), [token]))
                continue
            completed, pending = self.decode_stream((token,), pending)
            text += completed
            run.append(token)
            if not pending:
                runs.append((text, run))
                text, run = "", []
        if run:
            runs.append((text + self.decode_stream((), pending, last=True)[0], run))
        return runs


def _is_control(token: str) -> bool:
    return token.startswith("<|") and token.endswith("|>")


def _anchors(vocabulary: dict[str, int]) -> tuple[int, int, int, int]:
    """Ids of end of text, start of transcript, translate and no timestamps, from which all others follow."""
    names = ("<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|notimestamps|>")
    missing = [name for name in names if name not in vocabulary]
    if missing:
        raise ValueError(f"not a Whisper tokenizer: no token {', '.join(missing)}")
    eot, sot, translate, no_timestamps = (vocabulary[name] for name in names)
    if sot != eot + 1 or not 1 <= translate - sot - 1 <= len(LANGUAGES) or no_timestamps != translate + 5:
        found = ", ".join(f"{name} at {vocabulary[name]}" for name in names)
        raise ValueError(
            f"{found}: not laid out as in Whisper, where start of transcript follows end of text, then come "
            "1 to 100 languages, translate, and no timestamps five later"
        )
    return eot, sot, translate, no_timestamps


def _token_bytes(text_tokens: dict[str, int], count: int) -> list[bytes]:
    """The bytes of every text token, undoing GPT-2's writing of each byte as a printable character."""
    byte_of = {character: byte for byte, character in enumerate(_printable_bytes())}
    by_id = {id_: token for token, id_ in text_tokens.items()}
    table = []
    for id_ in range(count):
        try:
            table.append(bytes(byte_of[character] for character in by_id[id_]))
        except KeyError:
            raise ValueError(f"text token {id_} ({by_id.get(id_)!r}) is missing or not byte-level") from None
    return table


def _printable_bytes() -> list[str]:
    """Per byte the character that stands for it in the vocabulary: itself if printable in Latin-1, else U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
