"""SSML in a stream of text: tags found wherever the text is cut, and bounded however it goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from loquent.speech.runtime.snapshot import MOST
from loquent.tts.frontend.elements import FASTEST, SLOWEST, break_s, phonemes_of, tempo, words_of
from loquent.tts.frontend.normalization.pieces import CLOSING, OPENING, Piece, cut

LONGEST_TAG = 300  # characters; a "<" that is not closed within them is text
LONGEST_CONTENT = 200  # characters of an element that is read as a whole; of a longer one the text is read
DEEPEST = 16  # elements in each other; those further in are ignored
PARAGRAPH_PAUSE_S = 0.5
TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)(.*?)(/?)>", re.DOTALL)
ATTRIBUTE = re.compile(r"([\w:.-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
ENTITY = re.compile(r"&(?:#(\d{1,7})|#[xX]([0-9A-Fa-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));")
NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'", "nbsp": " "}
WHOLE = {"sub", "phoneme", "say-as"}  # elements that are read as a whole
BREAKING = {"p": PARAGRAPH_PAUSE_S, "paragraph": PARAGRAPH_PAUSE_S, "s": 0.0, "sentence": 0.0}


@dataclass(frozen=True)
class Element:
    """An element that is open: its name, and the tempo within it."""

    name: str
    rate: float


@dataclass(frozen=True)
class Content:
    """What an element that is read as a whole has in it so far.

    places: begin and end of each character in the stream's text.
    """

    name: str
    attributes: dict[str, str]
    text: str = ""
    places: tuple[tuple[int, int], ...] = ()


@dataclass
class MarkupState:
    """What is under way between two words.

    tag:      from its "<" on, at character ``tag_at`` of the stream's text.
    quote:    that of the attribute's value in which the tag is.
    elements: those that are open, the innermost last.
    """

    tag: str = ""
    tag_at: int = 0
    quote: str = ""
    elements: tuple[Element, ...] = ()
    content: Content | None = None

    def check(self) -> None:
        """Make sure that values from elsewhere are possible.

        Raises:
            ValueError: they are not.
        """
        content = self.content or Content("sub", {})
        if len(self.tag) > LONGEST_TAG or self.tag[:1] not in ("", "<") or self.quote not in ("", "'", '"'):
            raise ValueError("a saved tag is none")
        if len(self.elements) > DEEPEST or not all(SLOWEST <= one.rate <= FASTEST for one in self.elements):
            raise ValueError("the saved elements of a text are too many, or have a tempo that is not possible")
        if content.name not in WHOLE or not len(content.text) == len(content.places) <= LONGEST_CONTENT:
            raise ValueError("the saved content of an element does not fit it")
        if sum(len(name) + len(value) for name, value in content.attributes.items()) > LONGEST_TAG:
            raise ValueError("a saved element has too many attributes")
        if not all(0 <= begin <= end <= MOST for begin, end in (*content.places, (self.tag_at, self.tag_at))):
            raise ValueError("a saved place is outside the text")


class Markup:
    """Takes text with tags, gives pieces.

    Elements: ``speak``, ``p``, ``s``, ``break``, ``sub``, ``phoneme``, ``say-as``, ``prosody`` (rate), ``emphasis``.
    Other tags are left out, their text is read.
    """

    def __init__(self) -> None:
        self.state = MarkupState()
        self._run = ""  # text since the last white space or tag
        self._places: list[tuple[int, int]] = []
        self._pieces: list[Piece] = []  # of the word under way

    def take(self, word: str, position: int, joined: bool) -> list[Piece]:
        """The pieces that a word of the text completes.

        Args:
            word: with the white space before it.
            position: of its first character in the stream's text.
            joined: whether the text goes on without white space.
        """
        result: list[Piece] = []
        lines = 0
        for at, character in enumerate(word, start=position):
            if not self.state.tag and self.state.content is None and character.isspace():
                lines += character == "\n"
                continue
            if lines > 1:
                result.append(Piece("", at, at, pause_s=PARAGRAPH_PAUSE_S))
            lines = 0
            self._character(character, at)
        return result + self._end_word(joined)

    def finish(self) -> list[Piece]:
        """What is left where the text ends or is flushed: a tag that was not closed is text."""
        self._abandon_tag()
        self._end_content()
        return self._end_word(joined=False)

    def _character(self, character: str, at: int) -> None:
        state = self.state
        if character == "<":
            self._abandon_tag()
            state.tag, state.tag_at = "<", at
        elif not state.tag:
            self._text(character, at, at + 1)
        else:
            state.tag += character
            comment = state.tag.startswith("<!--")
            if character == ">" and (state.tag.endswith("-->") if comment else not state.quote):
                tag, state.tag, state.quote = state.tag, "", ""
                self._obey(tag, state.tag_at, at + 1)
            elif len(state.tag) == LONGEST_TAG or not (state.tag[1].isalpha() or state.tag[1] in "/!?"):
                self._abandon_tag()
            elif character == state.quote:
                state.quote = ""
            elif not state.quote and character in "\"'":
                state.quote = character

    def _abandon_tag(self) -> None:
        """It is text after all."""
        tag, self.state.tag, self.state.quote = self.state.tag, "", ""
        for at, character in enumerate(tag, start=self.state.tag_at):
            self._text(character, at, at + 1)

    def _text(self, character: str, begin: int, end: int) -> None:
        content = self.state.content
        if content is not None:
            places = (*content.places, (begin, end))
            self.state.content = replace(content, text=content.text + character, places=places)
            if len(places) == LONGEST_CONTENT:
                self._give_up()
        elif character.isspace():
            self._end_run(joined=False)
        else:
            self._run += character
            self._places.append((begin, end))

    def _obey(self, tag: str, begin: int, end: int) -> None:
        found = TAG.fullmatch(tag)
        if not found:  # a comment, a declaration
            return
        closing, name, rest, empty = found[1], found[2].lower(), found[3], found[4]
        attributes = {key.lower(): _decoded(double or single) for key, double, single in ATTRIBUTE.findall(rest)}
        if self.state.content is not None:
            if closing and name == self.state.content.name:
                self._end_content()
            return
        self._end_run(joined=True)
        if name == "break":
            if break_s(attributes) > 0 and not closing:
                self._break(begin, break_s(attributes))
        elif name in BREAKING:
            self._break(begin, BREAKING[name] if closing else 0.0)
        elif closing:
            self._leave(name)
        elif name in WHOLE and not empty:
            self.state.content = Content(name, attributes)
        elif name in WHOLE and attributes.get("alias"):
            self._alias(attributes["alias"], begin, end)
        elif not empty and name in ("prosody", "emphasis") and len(self.state.elements) < DEEPEST:
            rate = min(max(self._rate * tempo(name, attributes), SLOWEST), FASTEST)
            self.state.elements += (Element(name, rate),)

    @property
    def _rate(self) -> float:
        return self.state.elements[-1].rate if self.state.elements else 1.0

    def _leave(self, name: str) -> None:
        """Close the innermost element of a name, and those that were left open within it."""
        names = [element.name for element in self.state.elements]
        if name in names:
            self.state.elements = self.state.elements[: len(names) - 1 - names[::-1].index(name)]

    def _break(self, at: int, pause_s: float) -> None:
        if self._pieces:
            self._pieces[-1] = replace(self._pieces[-1], joined=False)
        self._pieces.append(Piece("", at, at, pause_s=pause_s))

    def _give_up(self) -> None:
        """Read the text of an element that is too long to be read as a whole."""
        content, self.state.content = self.state.content, None
        if content is not None:
            for character, (begin, end) in zip(content.text, content.places, strict=True):
                self._text(character, begin, end)

    def _end_content(self) -> None:
        content = self.state.content
        if content is None:
            return
        text = _decoded(content.text).strip().strip(OPENING + CLOSING)
        attributes = content.attributes
        phonemes = phonemes_of(attributes) if content.name == "phoneme" else ""
        words = words_of(attributes, text) if content.name == "say-as" else None
        if not text or not (phonemes or words or attributes.get("alias")):
            self._give_up()
            return
        self.state.content = None
        places = [place for place, c in zip(content.places, content.text, strict=True) if not c.isspace()]
        begin, end = places[0][0], places[-1][1]
        if content.name == "sub":
            self._alias(attributes["alias"], begin, end)
            return
        name = "-".join(text.split())
        given = tuple(words or ())
        self._add([Piece(name, begin, end, joined=True, phonemes=phonemes, words=given, rate=self._rate)])

    def _alias(self, alias: str, begin: int, end: int) -> None:
        """Text that stands for other text, at the place of that."""
        for index, word in enumerate(alias[:LONGEST_CONTENT].split()):
            if index:
                self._end_run(joined=False)
            self._run, self._places = word, [(begin, end)] * len(word)
        self._end_run(joined=True)

    def _end_run(self, joined: bool) -> None:
        """Cut the text so far; its pieces wait for the end of the word, as punctuation may follow a tag."""
        run, places = self._run, self._places
        self._run, self._places = "", []
        if not run:
            if self._pieces and not joined:
                self._pieces[-1] = replace(self._pieces[-1], joined=False)
            return
        run, places = _decode(run, places)
        for found in re.finditer(r"\S+", run):  # entities may be white space
            own = places[found.start() : found.end()]
            more = joined if found.end() == len(run) else False
            self._add([replace(piece, rate=self._rate) for piece in cut(found.group(), own, more, False)])

    def _add(self, pieces: list[Piece]) -> None:
        before = self._pieces[-1] if self._pieces else None
        if before and before.text and before.joined and pieces and not before.unread:
            first = pieces[0]
            rest = first.text.lstrip(CLOSING)
            if not rest and not first.unread:  # punctuation behind a tag
                self._pieces[-1] = replace(before, text=before.text + first.text, end=first.end, joined=first.joined)
                pieces = pieces[1:]
            elif not before.text.strip(OPENING) and not first.unread:  # or before one
                self._pieces.pop()
                pieces = [replace(first, text=before.text + first.text, begin=before.begin), *pieces[1:]]
        self._pieces += pieces

    def _end_word(self, joined: bool) -> list[Piece]:
        self._end_run(joined)
        pieces, self._pieces = self._pieces, []
        if pieces and not joined:
            pieces[-1] = replace(pieces[-1], joined=False)
        return pieces


def _decode(text: str, places: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """Entities as the characters they stand for."""
    if "&" not in text:
        return text, places
    result, kept, start = "", [], 0
    for found in ENTITY.finditer(text):
        character = _entity(found)
        result += text[start : found.start()] + character
        kept += places[start : found.start()]
        kept += [(places[found.start()][0], places[found.end() - 1][1])] * len(character)
        start = found.end()
    return result + text[start:], kept + places[start:]


def _decoded(text: str) -> str:
    return ENTITY.sub(_entity, text)


def _entity(found: re.Match[str]) -> str:
    if found[3]:
        return NAMED[found[3]]
    code = int(found[1]) if found[1] else int(found[2], 16)
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else ""
