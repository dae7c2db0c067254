"""What all pages do with requests and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import uvicorn
from starlette.responses import JSONResponse, Response

from agent.web.bounded_protocol import BoundedProtocol
from agent.web.token_auth import RefusedError
from calibration.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.applications import Starlette
    from starlette.requests import Request

    from agent.messages.records import Payload
    from agent.web.token_auth import TokenAuth
    from calibration.errors import ShiftwatchError

STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_LONGEST_HEADER_BYTES = 16 * 1024
_ENDED_WITHIN_S = 1


class StaticFiles:
    """Files of the pages, from a fixed list.

    Args:
        folders: All files in them; of two with the same name, that of the later folder.
        first: The file for a request that names none.
    """

    def __init__(self, folders: Sequence[Path], first: str) -> None:
        self._files = {path.name: path.read_bytes() for folder in folders for path in folder.iterdir()}
        self._first = first

    async def response(self, request: Request) -> Response:
        """The file that a request names."""
        name = request.path_params.get("name", self._first)
        if name not in self._files:
            raise RefusedError(404, "there is nothing here")
        return Response(self._files[name], media_type=_TYPES[Path(name).suffix])


def check_token(auth: TokenAuth, request: Request) -> None:
    """Raise RefusedError unless the request has the token."""
    address = "" if request.client is None else request.client.host
    auth.check(address, request.headers.get("authorization", ""))


async def json_object(request: Request) -> Payload:
    """The JSON object that a request contains; RefusedError if it contains none."""
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RefusedError(400, "not a JSON object")
    return content


def error_response(error: Exception, status: int) -> Response:
    """The answer to a request that ended with an error; of a RefusedError with its own status."""
    if isinstance(error, RefusedError):
        return JSONResponse({"error": printable(str(error))}, error.status)
    return JSONResponse({"error": printable(cast("ShiftwatchError", error).one_line)}, status)


def server_of(app: Starlette) -> uvicorn.Server:
    """A server for this application, bounded in connections, times and sizes."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_ENDED_WITHIN_S,
            h11_max_incomplete_event_size=_LONGEST_HEADER_BYTES,
        )
    )
