"""How all servers of this project refuse a request: with one sentence, as JSON."""

from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

from apps.serve.limits import Refusal


def problem(refusal: Refusal) -> Response:
    """The HTTP response for a refusal."""
    headers = {"Retry-After": str(refusal.again)} if refusal.again else {}
    return JSONResponse({"error": refusal.sentence}, refusal.status, headers)


async def refused(_: Request, refusal: Exception) -> Response:
    """The exception handler for `Refusal`."""
    assert isinstance(refusal, Refusal)
    return problem(refusal)


async def gone(_: Request, __: Exception) -> Response:
    """The exception handler for `ClientDisconnect`; the answer only serves the counts, since nobody receives it."""
    return problem(Refusal(400, "the client went away"))
