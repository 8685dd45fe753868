"""Abbreviations: titles, streets, initials, letters with dots, and the dots that end a sentence or do not."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.calendar import MONTHS, WEEKDAYS
from loquent.tts.frontend.normalization.view import Letter, Reading, View, said

TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Messrs": "Messieurs", "Mx": "Mix", "Prof": "Professor",
    "Gen": "General", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Capt": "Captain",
    "Lt": "Lieutenant", "Col": "Colonel", "Sgt": "Sergeant", "Cmdr": "Commander", "Rev": "Reverend",
    "Hon": "Honorable", "Pres": "President", "Supt": "Superintendent", "Cpl": "Corporal", "Maj": "Major",
    "Adm": "Admiral", "Msgr": "Monsignor", "Mt": "Mount", "Ft": "Fort", "Pvt": "Private", "Insp": "Inspector",
}  # fmt: skip
WITHOUT_DOT = {"Mr", "Mrs", "Ms", "Mx", "Prof", "Lt", "Col", "Capt", "Sgt", "Gov", "Cpl", "Messrs", "Mt"}
ROADS = {
    "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane", "Hwy": "Highway", "Pkwy": "Parkway",
    "Sq": "Square", "Ct": "Court", "Pl": "Place", "Ter": "Terrace",
}  # fmt: skip
# Behind names; before another capital letter they rarely end a sentence.
AFTER_NAMES = {
    "Jr": "Junior", "Sr": "Senior", "Inc": "Incorporated", "Corp": "Corporation", "Ltd": "Limited", "Co": "Company",
    "Bros": "Brothers", "Esq": "Esquire", **ROADS,
}  # fmt: skip
WORDS = {
    "e.g": "for example", "eg": "for example", "i.e": "that is", "ie": "that is", "etc": "etcetera", "vs": "versus",
    "approx": "approximately", "dept": "department", "Dept": "Department", "govt": "government", "Govt": "Government",
    "univ": "university", "Univ": "University", "assn": "association", "Assn": "Association", "cf": "compare",
    "ca": "circa", "al": "al", "incl": "including", "excl": "excluding", "esp": "especially", "misc": "miscellaneous",
    "tel": "telephone", "Tel": "Telephone", "ext": "extension", "Ext": "Extension", "Apt": "Apartment",
    "apt": "apartment", "Ste": "Suite", "Bldg": "Building", "bldg": "building", "Atty": "Attorney", "viz": "namely",
    "Intl": "International", "Natl": "National", "max": "maximum", "temp": "temperature", "avg": "average",
    "qty": "quantity", "hrs": "hours", "mins": "minutes", "secs": "seconds", "yrs": "years", "a.k.a": "also known as",
    "Ph.D": "P.H.D", "ibid": "ibid", "resp": "respectively", "wt": "weight", "ht": "height", "pkg": "package",
}  # fmt: skip
BEFORE_NUMBERS = {
    "No": "Number", "no": "number", "Nos": "Numbers", "nos": "numbers", "№": "number", "vol": "volume",
    "Vol": "Volume", "fig": "figure", "Fig": "Figure", "figs": "figures", "Figs": "Figures", "ch": "chapter",
    "Ch": "Chapter", "sec": "section", "Sec": "Section", "p": "page", "pp": "pages", "pg": "page", "pgs": "pages",
    "eq": "equation", "Eq": "Equation", "art": "article", "Art": "Article", "c": "circa", "Op": "Opus", "op": "opus",
    "ver": "version", "Ver": "Version", "par": "paragraph", "est": "established", "Est": "Established",
}  # fmt: skip
WITHOUT_ANY_DOT = {
    "vs": "versus", "aka": "also known as", "w/": "with", "w/o": "without", "b/c": "because", "etc": "etcetera",
    "approx": "approximately", "Blvd": "Boulevard", "Hwy": "Highway", "Pkwy": "Parkway", "Ave": "Avenue",
    "Jr": "Junior", "Sr": "Senior", "eg": "for example", "ie": "that is",
}  # fmt: skip
NEVER_LAST = set("e.g eg i.e ie vs approx cf ca incl excl esp viz a.k.a Apt apt Ste Atty tel Tel ext Ext".split())
DOTTED = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]|(?:[A-Z][a-z]?\.)+[A-Z][a-z]?")
PLURAL_DOTTED = re.compile(r"((?:[A-Z]\.)+)('?s)")
BEFORE_SAINTS = {"Mount", "Fort", "Port", "Lake", "San", "And", "Of", "The"}
# Words that begin sentences, and rarely come after an abbreviation within one.
STARTERS = set(
    "The A An He She It They We You I This That These Those There Here His Her Its Their Our My Your In On At But And "
    "So If When While As After Before Since For From To With By No Not What Why How Who Where Then Now However Also "
    "Yes Well Let Please Once Because Although Though Every Each Some Many Most All Both One Two".split()
)


def abbreviation(view: View) -> Reading | None:
    """What is written short and said in full."""
    core, dotted = view.core, view.piece.closing.startswith(".")
    if core in ("Dr", "St"):
        return _doctor_or_drive(view) if core == "Dr" else _saint_or_street(view)
    if core in TITLES and (dotted or core in WITHOUT_DOT):
        return _title(view)
    if core in BEFORE_NUMBERS and (dotted or core == "№"):
        return _before_number(view)
    if dotted and core in AFTER_NAMES:
        return _with_dot(view, AFTER_NAMES[core], ends_before_names=False)
    if dotted and core in WORDS:
        return _with_dot(view, WORDS[core])
    if core in WITHOUT_ANY_DOT:
        return said(WITHOUT_ANY_DOT[core].split())
    found = PLURAL_DOTTED.fullmatch(core)
    if found:
        return said([found[1].replace(".", "") + "s"])
    if DOTTED.fullmatch(core):
        return _with_dot(view, core, ends_before_names=False) if dotted else said([core])
    return None


def initial(view: View) -> Reading | None:
    """A letter with a dot: of a name ("J. K. Rowling"), or at the end of a sentence ("Plan B.")."""
    core, closing = view.core, view.piece.closing
    if len(core) != 1 or not "A" <= core <= "Z":
        return None
    if closing != ".":
        return said([Letter(core)]) if view.preceding()[:1].islower() else None  # "an A", not "Build A House"
    following = view.after()
    if following is None:
        return said([Letter(core)])
    name = following.core
    begins = not view.before or view.preceding()[:1].isupper()
    ends = name in STARTERS or (core == "I" and name[:1].isupper() and not (begins and len(name) == 1))
    return said([Letter(core)], closing="." if ends else "")


def _title(view: View) -> Reading | None:
    """Before a name. Otherwise the dot ends a sentence, as in "He called Gen."."""
    following = view.after() if view.piece.closing in ("", ".") else None
    name = following is not None and following.core[:1].isupper()
    if view.core in ("Mr", "Mrs", "Ms", "Mx", "Prof", "Messrs") or name:
        rest = view.piece.closing.removeprefix(".")
        return said([TITLES[view.core]], closing=rest if following else view.piece.closing)
    return None


def _doctor_or_drive(view: View) -> Reading:
    following = view.after() if view.piece.closing in ("", ".") else None
    name = following is not None and following.core[:1].isupper()
    if _in_address(view) or (not name and _is_name(view.preceding())):
        return _with_dot(view, "Drive", ends_before_names=False)
    return said(["Doctor"], closing=view.piece.closing.removeprefix(".") if following else None)


def _saint_or_street(view: View) -> Reading:
    following = view.after() if view.piece.closing in ("", ".") else None
    name = following is not None and following.core[:1].isupper()
    before = view.preceding()
    starts = len(view.before) < 2
    if name and not _in_address(view) and (not _is_name(before) or starts or before in BEFORE_SAINTS):
        return said(["Saint"], closing=view.piece.closing.removeprefix("."))
    if _is_name(before) or before[:1].isdigit():
        return _with_dot(view, "Street", ends_before_names=False)
    return said(["Saint"], closing=view.piece.closing.removeprefix(".") if following else None)


def _is_name(text: str) -> bool:
    """Whether it may be a name that goes on: "Elm", but not "Elm,"."""
    return text[:1].isupper() and text[-1:].isalnum()


def _in_address(view: View) -> bool:
    """Whether a capitalised word before it follows a house's number: "12 Main", "350 E. Oak"."""
    if not _is_name(view.preceding()):
        return view.preceding()[:1].isdigit() and view.preceding()[-1:].isalpha()  # "5th St."
    return any(view.preceding(count)[:1].isdigit() for count in (2, 3))


def _before_number(view: View) -> Reading | None:
    if view.piece.closing not in (".", ""):
        return None
    following = view.after()
    if following is not None and (
        following.core[:1].isdigit() or (len(following.core) == 1 and view.core in ("Fig", "No"))
    ):
        return said(BEFORE_NUMBERS[view.core].split(), closing="")
    return None


def _with_dot(view: View, words: str, ends_before_names: bool = True) -> Reading:
    """An abbreviation whose dot may also end the sentence.

    Args:
        ends_before_names: whether any capital letter behind it begins a sentence, or only some words do.
    """
    closing = view.piece.closing
    if not closing.startswith("."):
        return said(words.split(), closing=closing)
    rest = closing[1:]
    if rest:
        return said(words.split(), closing=rest if rest[0] in ",;:!?" else closing)
    following = view.after()
    name = following.core if following else ""
    ends = following is None or (name in STARTERS and view.core not in NEVER_LAST)
    if view.core in NEVER_LAST:
        ends_before_names = False
    if ends_before_names and name[:1].isupper() and name != "I":
        ends = ends or name not in (*MONTHS, *WEEKDAYS.values())
    return said(words.split(), closing="." if ends else "")
