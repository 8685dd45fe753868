"""What makes a site of the pages: their order, pages made of docstrings, the files that they link to outside docs."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
API = "reference/api"
OUTSIDE = "repository"  # where the site has files that are not in docs/, under their paths
LINK = re.compile(r"(\]\()((?!\w+:|#|/)[^)\s#]+)(#[^)\s]*)?(\))")
FOLDER = re.compile(r"\[([^\]]+)\]\((?!\w+:)[^)\s]+/\)")  # a link to one, which the site does not have
SOUND = re.compile(r"^\[([^\]]+)\]\(([^)]+\.opus)\)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation is the list of pages in index.md."""
    sections: dict[str, list[Any]] = {}
    for line in (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"\*\*([^*:]+):?\*\*", line):
            sections[heading[1]] = []
        for title, page in re.findall(r"\[([^\]]+)\]\(([^)]+\.md)\)", line):
            list(sections.values())[-1].append({title[0].upper() + title[1:]: page})
    sections["Start"].insert(0, {"All pages": "index.md"})
    sections["Reference"].append({"Docstrings": [{name: _api_page(name)} for name in config.extra["api"]]})
    config.nav = [{name: pages} for name, pages in sections.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of docstrings, and the files outside docs/ that pages link to."""
    for name, objects in config.extra["api"].items():
        content = f"# {name}\n\n" + "\n".join(f"::: loquent.{one.removeprefix('loquent.')}\n" for one in objects)
        files.append(File.generated(config, _api_page(name), content=content))
    waiting = [(PurePosixPath("docs") / file.src_uri, file.content_string) for file in files.documentation_pages()]
    added = set()
    while waiting:
        path, text = waiting.pop()
        for target in filter(_is_outside, (_target(path, link) for _, link, *_ in LINK.findall(text))):
            if target in added or not (ROOT / target).is_file():
                continue
            added.add(target)
            place, source = f"{OUTSIDE}/{target}", str(ROOT / target)
            files.append(File.generated(config, place, abs_src_path=source, inclusion=InclusionLevel.NOT_IN_NAV))
            if target.suffix == ".md":
                waiting.append((target, (ROOT / target).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to where the site has the files, and links to speech are players."""
    here = PurePosixPath(page.file.src_uri)
    path = here.relative_to(OUTSIDE) if here.is_relative_to(OUTSIDE) else "docs" / here

    def moved(match: re.Match[str]) -> str:
        target = _target(path, match[2])
        place = OUTSIDE / target if _is_outside(target) else target.relative_to("docs")
        return f"{match[1]}{relpath(place, here.parent)}{match[3] or ''}{match[4]}"

    def player(match: re.Match[str]) -> str:
        return f'{match[1]}<br><audio controls preload="none" src="{match[2]}"></audio>'

    return SOUND.sub(player, LINK.sub(moved, FOLDER.sub(r"\1", markdown)))


def _api_page(name: str) -> str:
    return f"{API}/{name.lower().replace(' ', '-')}.md"


def _target(page: PurePosixPath, link: str) -> PurePosixPath:
    """What a link on a page means, from the root of the repository."""
    return PurePosixPath(normpath(page.parent / link))


def _is_outside(target: PurePosixPath) -> bool:
    return not target.is_relative_to("docs")
