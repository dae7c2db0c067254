"""The requests that browsers may send, and the answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
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
from agent.web.requests import STATIC, StaticFiles, check_token, error_response, json_object
from agent.web.token_auth import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator
    from pathlib import Path

    from starlette.requests import Request

    from agent.messages.records import Payload
    from agent.web.dashboard import Dashboard
    from agent.web.frame_stream import FrameStream
    from agent.web.gallery import Gallery
    from agent.web.past_results import PastResults
    from agent.web.token_auth import TokenAuth

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
        self._files = StaticFiles([STATIC], "index.html").response

    def app(self, names: Collection[str]) -> Starlette:
        """ASGI application; ``names``: host names that browsers may use as well."""
        return Starlette(
            routes=[
                Route("/", self._files),
                Route("/events", self._events),
                Route("/picture", self._picture),
                Route("/archive", self._archive),
                Route("/archive/{result}/{size}.jpg", self._archived),
                Route("/archive/{result}", self._mark, methods=["POST"]),
                Route("/statistics", self._statistics),
                Route("/statistics.csv", self._statistics_csv),
                Route("/results.csv", self._results_csv),
                Route("/scores", self._scores),
                Route("/recalibration", self._recalibration),
                Route("/recalibration", self._recalibrate, methods=["POST"]),
                Route("/unlock", self._unlock, methods=["POST"]),
                Route("/command/{name}", self._command, methods=["POST"]),
                Route("/{name}", self._files),
            ],
            middleware=[Middleware(RequestGuard, names=names)],
            exception_handlers=dict.fromkeys(_ANSWERED, _error_response),
        )

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

    async def _scores(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._past.scores, request.query_params))

    async def _mark(self, request: Request) -> Response:
        check_token(self._auth, request)
        label = (await json_object(request)).get("label")
        return await self._commanded("mark", {"resultId": _result_of(request), "label": label})

    async def _recalibration(self, _: Request) -> Response:
        return JSONResponse(self._recalibrations.ended())

    async def _recalibrate(self, request: Request) -> Response:
        """Start or cancel a recalibration. The station's state has its progress, `_recalibration` its result."""
        check_token(self._auth, request)
        answer = await run_in_threadpool(self._recalibrations.start, await json_object(request))
        if not answer["accepted"]:
            raise RefusedError(409, str(answer["error"]))
        self._stream.ask_soon()
        return JSONResponse({"auditHash": answer["auditHash"]})

    async def _unlock(self, request: Request) -> Response:
        check_token(self._auth, request)
        return Response(status_code=204)

    async def _command(self, request: Request) -> Response:
        check_token(self._auth, request)
        name = request.path_params["name"]
        if name not in _COMMANDS:
            raise RefusedError(404, f"there are: {', '.join(sorted(_COMMANDS))}")
        return await self._commanded(name, await json_object(request))

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


def _error_response(_: Request, error: Exception) -> Response:
    return error_response(error, 503 if isinstance(error, StationUnreachableError) else 404)
