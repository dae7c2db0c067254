"""The requests of the set-up page, and the answers; all but the page's own files need the token."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.setup.step_values import STEPS
from agent.web.request_guard import RequestGuard
from agent.web.requests import STATIC, StaticFiles, check_token, error_response, json_object
from agent.web.token_auth import RefusedError
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import Request

    from agent.setup.steps import Steps
    from agent.web.token_auth import TokenAuth

log = logging.getLogger(__name__)

_OWN = Path(__file__).parent / "static"
_PICTURE_WITHIN_S = 1.0  # a stop waits for it


class SetupRoutes:
    """The page of a set-up."""

    def __init__(self, steps: Steps, auth: TokenAuth) -> None:
        self._steps = steps
        self._auth = auth
        self._files = StaticFiles([STATIC, _OWN], "setup.html").response

    def app(self, names: Collection[str]) -> Starlette:
        """ASGI application; ``names``: host names that browsers may use as well."""
        return Starlette(
            routes=[
                Route("/", self._files),
                Route("/setup", self._state),
                Route("/setup/picture", self._picture),
                Route("/setup/tray/{name}/{size}", self._tray_image),
                Route("/setup/trial/{result}", self._trial_image),
                Route("/setup/{step}", self._step, methods=["POST"]),
                Route("/{name}", self._files),
            ],
            middleware=[Middleware(RequestGuard, names=names)],
            exception_handlers={
                RefusedError: _error_response,
                ShiftwatchError: _error_response,
                Exception: _unexpected_response,
            },
        )

    async def _state(self, request: Request) -> Response:
        check_token(self._auth, request)
        return JSONResponse(await run_in_threadpool(self._steps.state))

    async def _picture(self, request: Request) -> Response:
        check_token(self._auth, request)
        after = request.query_params.get("after", "")
        known = int(after) if after.isdecimal() and len(after) < 10 else -1  # noqa: PLR2004 - digits
        found = await run_in_threadpool(self._steps.bench.picture_after, known, _PICTURE_WITHIN_S)
        if found is None:
            return Response(status_code=204)
        number, jpeg = found
        return Response(jpeg, media_type="image/jpeg", headers={"X-Number": str(number)})

    async def _tray_image(self, request: Request) -> Response:
        check_token(self._auth, request)
        name, size = request.path_params["name"], request.path_params["size"]
        return Response(await run_in_threadpool(self._steps.tray.jpeg, name, size), media_type="image/jpeg")

    async def _trial_image(self, request: Request) -> Response:
        check_token(self._auth, request)
        trial = self._steps.bench.trial
        if trial is None:
            raise RefusedError(404, "the trial is over")
        content = await run_in_threadpool(trial.jpeg, request.path_params["result"])
        return Response(content, media_type="image/jpeg")

    async def _step(self, request: Request) -> Response:
        check_token(self._auth, request)
        step = request.path_params["step"]
        if step not in STEPS:
            raise RefusedError(404, f"there are: {', '.join(STEPS)}")
        await run_in_threadpool(self._steps.do, step, await json_object(request))
        return JSONResponse(await run_in_threadpool(self._steps.state))


def _error_response(_: Request, error: Exception) -> Response:
    return error_response(error, 409)


def _unexpected_response(_: Request, error: Exception) -> Response:
    log.error("unexpected", exc_info=error)
    return JSONResponse({"error": "this should not happen; the log of the set-up says where it did"}, 500)
