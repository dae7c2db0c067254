"""The requests that browsers may send, and the answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent.commands.control_socket import ask_station
from agent.errors import ArchiveError, StationUnreachableError, StatisticsError
from agent.messages.records import to_json
from agent.web.gallery import SIZES_PX
from agent.web.recalibration import Recalibration
from agent.web.request_guard import RequestGuard
from agent.web.token_auth import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from starlette.requests import Request

    from agent.messages.records import Payload
    from agent.web.dashboard import Dashboard
    from agent.web.frame_stream import FrameStream
    from agent.web.gallery import Gallery
    from agent.web.past_results import PastResults
    from agent.web.token_auth import TokenAuth
    from calibration.errors import ShiftwatchError

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_ANSWERED = (RefusedError, ArchiveError, StatisticsError, StationUnreachableError)
_COMMANDS = {"threshold", "pause", "resume", "rollback"}
_PICTURE_WITHIN_S = 5.0
_RESULT_ID = re.compile("[0-9a-f]{32}")


class Routes:
    """The page.

    Args:
        stream: Frames, and news of updates.
        dashboard: Results and state.
        gallery: The archive; None if no images are kept.
        past: The statistics.
        auth: Checks the token of changes.
        state_dir: Where the agent takes commands.
        about: Station and version, for viewers.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a page is made of
        self,
        stream: FrameStream,
        dashboard: Dashboard,
        gallery: Gallery | None,
        past: PastResults,
        auth: TokenAuth,
        state_dir: Path,
        about: Payload,
    ) -> None:
        self._stream = stream
        self._dashboard = dashboard
        self._gallery = gallery
        self._past = past
        self._recalibrations = Recalibration(self._answers)
        self._auth = auth
        self._state_dir = state_dir
        self._about = {**about, "canChange": auth.is_possible, "hasArchive": gallery is not None}
        self._files = {path.name: path.read_bytes() for path in _STATIC.iterdir()}

    def app(self, names: Collection[str]) -> Starlette:
        """ASGI application; ``names``: host names that browsers may use as well."""
        return Starlette(
            routes=[
                Route("/", self._file),
                Route("/events", self._events),
                Route("/picture", self._picture),
                Route("/archive", self._archive),
                Route("/archive/{result}/{size}.jpg", self._archived),
                Route("/archive/{result}", self._mark, methods=["POST"]),
                Route("/statistics", self._statistics),
                Route("/statistics.csv", self._statistics_csv),
                Route("/results.csv", self._results_csv),
                Route("/recalibration", self._recalibration),
                Route("/recalibration", self._recalibrate, methods=["POST"]),
                Route("/unlock", self._unlock, methods=["POST"]),
                Route("/command/{name}", self._command, methods=["POST"]),
                Route("/{name}", self._file),
            ],
            middleware=[Middleware(RequestGuard, names=names)],
            exception_handlers=dict.fromkeys(_ANSWERED, _error_response),
        )

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in self._files:
            raise RefusedError(404, "there is nothing here")
        return Response(self._files[name], media_type=_TYPES[Path(name).suffix])

    async def _events(self, _: Request) -> Response:
        return StreamingResponse(self._updates(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def _updates(self) -> AsyncIterator[str]:
        """Server-sent events, each complete in itself; a slow viewer gets fewer."""
        since = updates = 0
        with self._stream.viewer():
            yield f"retry: 1000\nevent: hello\ndata: {to_json(self._about)}\n\n"
            while True:
                since, update = self._dashboard.update(since)
                stream = self._stream
                about = {"silentMs": stream.silent_ms, "viewers": stream.viewers, "encoded": stream.encoded}
                yield f"data: {to_json({**update, **about})}\n\n"
                updates = await self._stream.updates_after(updates)

    async def _picture(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        content = await self._stream.picture_after(after, _PICTURE_WITHIN_S)
        return Response(content, 204 if content is None else 200, media_type="application/octet-stream")

    async def _archive(self, request: Request) -> Response:
        found = await run_in_threadpool(self._kept_images().found, request.query_params)
        return JSONResponse({**found, "canChange": self._auth.is_possible})

    async def _archived(self, request: Request) -> Response:
        size = request.path_params["size"]
        if size not in SIZES_PX:
            raise RefusedError(404, f"there are: {', '.join(SIZES_PX)}")
        content = await run_in_threadpool(self._kept_images().jpeg, _result_of(request), size)
        return Response(content, media_type="image/jpeg")

    async def _statistics(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._past.totals, request.query_params))

    async def _statistics_csv(self, request: Request) -> Response:
        return _csv(await run_in_threadpool(self._past.totals_csv, request.query_params), "statistics")

    async def _results_csv(self, request: Request) -> Response:
        return _csv(await run_in_threadpool(self._past.results_csv, request.query_params), "results")

    async def _mark(self, request: Request) -> Response:
        self._check(request)
        label = (await _object(request)).get("label")
        return await self._commanded("mark", {"resultId": _result_of(request), "label": label})

    async def _recalibration(self, _: Request) -> Response:
        return JSONResponse(self._recalibrations.ended())

    async def _recalibrate(self, request: Request) -> Response:
        """Start or cancel a recalibration. The station's state has its progress, `_recalibration` its result."""
        self._check(request)
        answer = await run_in_threadpool(self._recalibrations.start, await _object(request))
        if not answer["accepted"]:
            raise RefusedError(409, str(answer["error"]))
        self._stream.ask_soon()
        return JSONResponse({"auditHash": answer["auditHash"]})

    async def _unlock(self, request: Request) -> Response:
        self._check(request)
        return Response(status_code=204)

    async def _command(self, request: Request) -> Response:
        self._check(request)
        name = request.path_params["name"]
        if name not in _COMMANDS:
            raise RefusedError(404, f"there are: {', '.join(sorted(_COMMANDS))}")
        return await self._commanded(name, await _object(request))

    async def _commanded(self, name: str, args: Payload) -> Response:
        first, last = await run_in_threadpool(self._send_command, name, args)
        if not last["accepted"]:
            raise RefusedError(409, str(last["error"]))
        self._stream.ask_soon()
        return JSONResponse({"auditHash": first["auditHash"]})

    def _send_command(self, name: str, args: Payload) -> tuple[Payload, Payload]:
        """The first and the last answer."""
        answers = list(self._answers(name, args))
        return answers[0], answers[-1]

    def _answers(self, name: str, args: Payload) -> Iterator[Payload]:
        return ask_station(self._state_dir, {"command": name, "commandId": uuid4().hex, "args": args})

    def _check(self, request: Request) -> None:
        address = "" if request.client is None else request.client.host
        self._auth.check(address, request.headers.get("authorization", ""))

    def _kept_images(self) -> Gallery:
        if self._gallery is None:
            raise RefusedError(404, "no images are kept: archive.enabled is false")
        return self._gallery


def _csv(text: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


def _result_of(request: Request) -> str:
    result = str(request.path_params["result"])
    if not _RESULT_ID.fullmatch(result):
        raise RefusedError(404, "there is no such result")
    return result


async def _object(request: Request) -> Payload:
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RefusedError(400, "not a JSON object")
    return content


def _error_response(_: Request, error: Exception) -> Response:
    if isinstance(error, RefusedError):
        return JSONResponse({"error": str(error)}, error.status)
    status = 503 if isinstance(error, StationUnreachableError) else 404
    return JSONResponse({"error": cast("ShiftwatchError", error).one_line}, status)
