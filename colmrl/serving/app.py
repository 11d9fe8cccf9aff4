"""The page and its JSON API, which docs/serve.md describes. Errors are {"error": what is wrong}."""

import asyncio
import hashlib
import importlib.resources
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from colmrl.errors import InputError
from colmrl.serving.desk import MOST_RESULTS, Desk, NotThere
from colmrl.serving.guard import Guard
from colmrl.serving.one_at_a_time import Busy, OneAtATime
from colmrl.serving.pictures import Size
from colmrl.serving.uploads import FORMATS, MAX_BYTES

log = logging.getLogger(__name__)
_ASSETS = {"/": ("index.html", "text/html"), "/style.css": ("style.css", "text/css")} | {
    "/app.js": ("app.js", "text/javascript")
}
_PICTURE = r"^[0-9a-f]{32}$"
_MOST_QUERY, _MOST_VIEW = 4000, 200  # characters
_MOST_ROW = 1 << 40
_UPLOADS = "/api/pictures"
_DECODED = 2  # pages at a time: a large one takes half a gigabyte

Text = Annotated[str, Query(max_length=_MOST_QUERY)]
Picture = Annotated[str | None, Query(pattern=_PICTURE)]
Count = Annotated[int, Path(ge=0, le=_MOST_ROW)]


class Question(BaseModel):
    """`picture`: the name that an upload was given; `exact`: though there is an index of the view."""

    model_config = ConfigDict(extra="forbid", strict=True)
    query: Annotated[str, Field(max_length=_MOST_QUERY)] = ""
    picture: Annotated[str | None, Field(pattern=_PICTURE)] = None
    view: Annotated[str | None, Field(max_length=_MOST_VIEW)] = None
    k: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 12
    exact: bool = False
    rerank: bool = True


@dataclass(frozen=True)
class Times:
    """Seconds: for an answer, waiting for others included, and for a body to arrive."""

    answer_s: float = 60.0
    body_s: float = 30.0


def create_app(desk: Desk, hosts: frozenset[str] | None, times: Times | None = None) -> Guard:
    """`hosts`: the names that it answers to; None: any."""
    times, about = times or Times(), desk.views()
    model, pages = OneAtATime(times.answer_s), ThreadPoolExecutor(_DECODED, thread_name_prefix="pages")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        model.close()
        pages.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="colmrl", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json", lifespan=lifespan)
    _add_assets(app)
    _add_errors(app, desk)

    @app.get("/api/views")
    async def views() -> dict[str, Any]:
        return about

    @app.post("/api/search")
    async def search(asked: Question) -> dict[str, Any]:
        how = asked.view, asked.k, asked.exact, asked.rerank
        return await model.run(lambda: desk.search(asked.query, asked.picture, *how))

    @app.post(_UPLOADS)
    async def upload(request: Request) -> dict[str, str]:
        """A picture as it is, no form; its name is for searches."""
        if not request.headers.get("content-type", "").startswith("image/"):
            raise HTTPException(415, f"content-type: not image/…: send a picture as it is ({', '.join(FORMATS)})")
        content = await request.body()
        return {"picture": await model.run(lambda: desk.uploads.add(content))}

    @app.get(_UPLOADS + "/{name}")
    async def uploaded(name: Annotated[str, Path(pattern=_PICTURE)]) -> Response:
        made = await model.run(lambda: desk.uploaded(name))
        return Response(made.content, media_type=made.media_type, headers={"cache-control": "private, max-age=3600"})

    @app.get("/api/explain/{row}")
    async def explain(row: Count, query: Text = "", picture: Picture = None, numbers: bool = False) -> dict[str, Any]:
        return await model.run(lambda: desk.explain(row, query, picture, numbers))

    @app.get("/api/thumbnail/{row}/{number}")
    async def thumbnail(request: Request, row: Count, number: Count, size: Size = "small") -> Response:
        tag = f'"{desk.answerer.documents.stamp[:16]}-{row}-{number}-{size}"'
        headers = {"etag": tag, "cache-control": "private, max-age=3600"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(times.answer_s):
                made = await loop.run_in_executor(pages, desk.thumbnail, row, number, size)
        except TimeoutError:
            raise Busy(f"no picture within {times.answer_s:g} s: ask again in a moment") from None
        return Response(made.content, media_type=made.media_type, headers=headers)

    return Guard(app, hosts, {_UPLOADS: MAX_BYTES}, times.body_s)


def _add_assets(app: FastAPI) -> None:
    """The page's own files, read once: no path is ever opened for a request."""
    folder = importlib.resources.files("colmrl.serving") / "static"
    for path, (name, media_type) in _ASSETS.items():
        content = (folder / name).read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'

        async def asset(
            request: Request, content: bytes = content, media_type: str = media_type, tag: str = tag
        ) -> Response:
            headers = {"etag": tag, "cache-control": "no-cache"}
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers=headers)
            return Response(content, media_type=media_type, headers=headers)

        app.add_route(path, asset, methods=["GET"], include_in_schema=False)


def _add_errors(app: FastAPI, desk: Desk) -> None:
    def said(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": message}, status, headers)

    @app.exception_handler(InputError)
    async def wrong(_: Request, error: Exception) -> JSONResponse:
        return said(400, desk.plain(str(error)))

    @app.exception_handler(NotThere)
    async def absent(_: Request, error: Exception) -> JSONResponse:
        return said(404, str(error))

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Exception) -> JSONResponse:
        return said(503, str(error), {"retry-after": "2"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return said(400, f"{place}: {first['msg']}: see docs/serve.md")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        ours = {"Not Found": "no such thing here", "Method Not Allowed": f"{request.method} is not for this"}
        message = ours.get(error.detail, error.detail)
        return said(error.status_code, message, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return said(500, "something went wrong here: the server's own output says what")
