"""The page at ``/`` and the files that it is made of, with the headers that browsers are to treat them by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS = {
    # Nothing but what this server sends: no script or style in the page itself, nothing of others.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Asked for each time and answered with 304: files of two versions of loquent never meet in one page.
    "Cache-Control": "no-cache",
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


class Page:
    """Serves the files of ``assets/page``, which are read once.

    Attributes:
        routes: ``/`` and ``/page/…``.
    """

    def __init__(self) -> None:
        self._files = dict(_files(resources.files("loquent.speech") / "assets" / "page"))
        self.routes: list[BaseRoute] = [Route("/", self._page), Route("/page/{name:path}", self._part)]

    async def _page(self, request: Request) -> Response:
        """``GET /``: speech in the browser."""
        return self._answer("page.html", request)

    async def _part(self, request: Request) -> Response:
        """``GET /page/{name}``: a style or a script of it."""
        return self._answer(request.path_params["name"], request)

    def _answer(self, name: str, request: Request) -> Response:
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404, f"the page has no file {name[:100]!r}")
        headers = {**_HEADERS, "ETag": file.etag}
        if file.etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, _File]]:
    """The files in a folder and those below it, by their paths within it."""
    for one in folder.iterdir():
        name = below + one.name
        if one.is_dir():
            yield from _files(one, f"{name}/")
        else:
            yield name, _file(name, one.read_bytes())


def _file(name: str, content: bytes) -> _File:
    kind = _KINDS.get(name.rpartition(".")[2], "application/octet-stream")
    return _File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
