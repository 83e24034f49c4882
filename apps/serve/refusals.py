"""What every server of this project says of a request that it does not answer: one sentence, as JSON."""

from fastapi.responses import JSONResponse, Response
from starlette.requests import Request

from apps.serve.limits import Refusal


def problem(refusal: Refusal) -> Response:
    """A refusal as an answer."""
    headers = {"Retry-After": str(refusal.again)} if refusal.again else {}
    return JSONResponse({"error": refusal.sentence}, refusal.status, headers)


async def refused(_: Request, refusal: Exception) -> Response:
    """The handler of `Refusal`."""
    assert isinstance(refusal, Refusal)
    return problem(refusal)


async def gone(_: Request, __: Exception) -> Response:
    """The handler of `ClientDisconnect`; nobody reads the answer but the counts."""
    return problem(Refusal(400, "the client went away"))
