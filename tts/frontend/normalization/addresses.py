"""Addresses of the web and of mail, telephone numbers, file names, versions, tags."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.codes import code_words
from loquent.tts.frontend.normalization.number_words import cardinal, digits
from loquent.tts.frontend.normalization.numerals import number_words
from loquent.tts.frontend.normalization.view import Reading, View, said

SCHEME = re.compile(r"(?:https?|ftp|wss?|file|mailto):(?://)?", re.IGNORECASE)
TOP = (
    r"(?:com|org|net|edu|gov|mil|int|io|ai|dev|app|co|uk|de|fr|es|it|nl|ch|at|eu|us|ca|au|nz|jp|cn|in|br|ru|info|biz|tv|me"
    r"|ly|gg|fm|xyz|tech|online|site|cloud|page|blog|news|wiki)"
)
HOST = re.compile(rf"(?:[\w-]+\.)+{TOP}(?::\d+)?(?:[/?#]\S*)?", re.IGNORECASE)
MAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
HANDLE = re.compile(r"@(\w[\w.-]*)")
HASHTAG = re.compile(r"#([A-Za-z]\w*)")
NUMBER_SIGN = re.compile(r"#(\d[\d,]*)")
FILE = re.compile(r"\.?[A-Za-z][\w-]*(?:\.[\w-]+)*\.[A-Za-z]\w{0,5}|\.[A-Za-z]\w*")
PATH = re.compile(r"(?:~|\.{1,2}|[A-Za-z]:)?(?:[/\\][\w.@+-]+){1,}[/\\]?|(?:[\w.@-]+/){2,}[\w.@-]*")
VERSION = re.compile(r"([vV])(\d+(?:\.\d+)*)(?:-?(alpha|beta|rc|a|b)\.?(\d*))?|(\d+(?:\.\d+){2,})")
PHONE = re.compile(r"(\+?1[-. ])?\(?(\d{3})\)?[-. ](\d{3})[-. ](\d{4})")
SHORT_PHONE = re.compile(r"(\d{3})[-.](\d{4})")
SPOKEN_TOPS = {"com", "org", "net", "edu", "gov", "info", "dev", "app", "biz", "mil", "tech", "online", "site", "cloud"}
SPOKEN_TOPS |= {"page", "blog", "news", "wiki", "co", "me", "int"}
SIGNS = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "+": "plus", "@": "at", "~": "tilde", ":": "colon",
    "\\": "backslash", "%": "percent",
}  # fmt: skip


def web_address(view: View) -> Reading | None:
    """ "https://www.example.com/docs?x=1" as "example dot com slash docs": no scheme, no "www", no query."""
    core = view.core
    scheme = SCHEME.match(core)
    rest = core[scheme.end() :] if scheme else core
    if MAIL.fullmatch(rest):
        return said(_mail_words(rest))
    if not scheme and not HOST.fullmatch(core) and not core.lower().startswith("www."):
        return None
    address = re.split(r"[?#]", rest.removeprefix("www."), maxsplit=1)[0].strip("/")
    host, slash, path = address.partition("/")
    words = _host_words(host)
    if slash:
        for segment in path.split("/"):
            words += ["slash", *_spelled(segment)]
    return said(words) if words else None


def file_name(view: View) -> Reading | None:
    """ "main.py", "Node.js", ".NET", and paths."""
    core = view.core
    if PATH.fullmatch(core) and not re.fullmatch(r"[A-Za-z']+/[A-Za-z']+(?:/[A-Za-z']+)?", core):
        return said(_path_words(core))
    if FILE.fullmatch(core):
        return said(_dotted_words(core))
    return None


def tag(view: View) -> Reading | None:
    """ "@name", "#topic", "#5"."""
    core = view.core
    found = HANDLE.fullmatch(core)
    if found:
        return said(["at", *_spelled(found[1], underscore=False)])
    found = NUMBER_SIGN.fullmatch(core)
    if found:
        figures = found[1].replace(",", "")
        return said(["number", *(cardinal(int(figures)) if len(figures) < 6 else digits(figures))])
    found = HASHTAG.fullmatch(core)
    return said(["hashtag", *_spelled(found[1], underscore=False)]) if found else None


def version(view: View) -> Reading | None:
    """ "v2.0.1", "2.0.1", and addresses of machines: "192.168.0.1"."""
    found = VERSION.fullmatch(view.core)
    if not found:
        return None
    figures = found[2] or found[5]
    groups = figures.split(".")
    if len(groups) == 4 and not found[1]:
        words = _joined([digits(group) if len(group) > 2 else number_words(group) for group in groups], "dot")
    else:
        words = _joined([number_words(group, years=False) for group in groups], "point")
    words = [*(["version"] if found[1] else []), *words]
    if found[3]:
        name = {"rc": "R.C", "a": "alpha", "b": "beta"}.get(found[3], found[3])
        words += [name, *(cardinal(int(found[4])) if found[4] else [])]
    return said(words)


def telephone(view: View) -> Reading | None:
    """ "555-123-4567", "(555) 123-4567", "+44 20 7946 0958", "555-1234"."""
    core = view.core
    found = PHONE.fullmatch(core)
    if found:
        groups = [group for group in (re.sub(r"\D", "", found[1] or ""), found[2], found[3], found[4]) if group]
        return said(_groups((["plus"] if core[0] == "+" else []), groups))
    found = SHORT_PHONE.fullmatch(core)
    if found and core.count("-"):
        return said(_groups([], [found[1], found[2]]))
    if core.startswith("+") and core[1:].isdigit() and len(core) <= 4:
        return _international(view)
    if core.isdigit() and len(core) == 3 and view.piece.opening.endswith("(") and view.piece.closing == ")":
        return _area_code(view)
    if (core.isdigit() and core in ("1", "800")) or (core.isdigit() and len(core) == 3 and not view.piece.closing):
        return _spaced(view)
    return None


def _spaced(view: View) -> Reading | None:
    """ "555 123 4567", or "555 123-4567"."""
    first, second = view.core, view.follower()
    if len(first) != 3:
        return None
    if SHORT_PHONE.fullmatch(second):
        return Reading((_behind(first), tuple(_groups([], re.split("[-.]", second)))))
    if len(second) == 3 and second.isdigit():
        third = view.follower(2)
        if len(third) == 4 and third.isdigit():
            return Reading((_behind(first), _behind(second), tuple(digits(third))))
    return None


def _area_code(view: View) -> Reading | None:
    piece = view.after()
    if piece is not None and SHORT_PHONE.fullmatch(piece.core):
        return Reading((_behind(view.core, comma=False), tuple(_groups([], re.split("[-.]", piece.core)))))
    if piece is not None and len(piece.core) == 3 and piece.core.isdigit() and not piece.closing:
        last = view.after(2)
        if last is not None and len(last.core) == 4 and last.core.isdigit():
            return Reading((_behind(view.core, comma=False), _behind(piece.core), tuple(digits(last.core))))
    return None


def _international(view: View) -> Reading | None:
    """A plus, and groups of digits as far as they go."""
    groups: list[str] = []
    while len(groups) < 6:
        group = view.follower(len(groups) + 1)
        bare = group.strip("()").replace("-", "")
        if not bare.isdigit() or not 2 <= len(bare) <= 8:
            break
        groups.append(bare)
    if len("".join(groups)) < 6:
        return None
    words = [("plus", *_behind(view.core[1:]))]
    words += [_behind(group) for group in groups[:-1]] + [tuple(digits(groups[-1]))]
    return Reading(tuple(words))


def _behind(figures: str, comma: bool = True) -> tuple[str, ...]:
    words = digits(figures)
    return (*words[:-1], words[-1] + ",") if comma else tuple(words)


def _groups(before: list[str], groups: list[str]) -> list[str]:
    """Digits one by one, with a pause between groups."""
    words = list(before)
    for group in groups[:-1]:
        words += _behind(group)
    return [*words, *digits(groups[-1])]


def _mail_words(address: str) -> list[str]:
    name, _, host = address.rpartition("@")
    return [*_spelled(name), "at", *_host_words(host)]


def _host_words(host: str) -> list[str]:
    name, colon, port = host.partition(":")
    labels = [label for label in name.split(".") if label]
    if not labels:
        return []
    words = _joined([_spelled(label) for label in labels[:-1]] + [_top_words(labels[-1])], "dot")
    return [*words, "colon", *(number_words(port) or _spelled(port))] if colon and port else words


def _top_words(label: str) -> list[str]:
    if label.lower() in SPOKEN_TOPS or len(label) != 2 or not label.isalpha():
        return _spelled(label)
    return [".".join(label.upper())]


def _path_words(path: str) -> list[str]:
    words: list[str] = []
    for part in re.findall(r"[/\\:~]|[^/\\:~]+", path):
        words += [SIGNS[part]] if part in SIGNS else _dotted_words(part)
    return words


def _dotted_words(name: str) -> list[str]:
    """A file name, its ending spelled if it is short: "main dot P Y"."""
    first, *labels = name.split(".")
    words = _spelled(first) if first else []
    for label in labels:
        words += ["dot", *(_ending_words(label) if label else [])]
    return words


def _ending_words(ending: str) -> list[str]:
    vowel = re.search("[aeiou]", ending.lower())
    if ending.isalpha() and ending.islower() and (len(ending) < 3 or not vowel):
        return [".".join(ending.upper())] if len(ending) > 1 else [ending.upper()]
    return _spelled(ending)


def _spelled(text: str, underscore: bool = True) -> list[str]:
    """Words and signs of a name."""
    words: list[str] = []
    for part in re.findall(r"[^\W_]+|[\W_]", text):
        if part == "_" and not underscore:
            continue
        words += [SIGNS[part]] if part in SIGNS else code_words(part)
    return words


def _joined(groups: list[list[str]], word: str) -> list[str]:
    result = list(groups[0])
    for group in groups[1:]:
        result += [word, *group]
    return result
