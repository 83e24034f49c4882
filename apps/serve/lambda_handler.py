"""Exported models on AWS Lambda, behind API Gateway or a function URL: the answers of the server's POST /predict.

    TEMPER_OPTIONS="--models classifier.tflite" python -m apps.serve.lambda_handler

It needs the container image of containers/lambda.Dockerfile, or a runtime with the packages of requirements-serve.lock.
The environment variable TEMPER_OPTIONS contains those options of the server that apply here (docs/serve.md), and
TEMPER_TOKEN the token that clients must send, if there is one.
"""

import sys
import traceback
from typing import Any

from apps.serve import function
from apps.serve.access import DEFECT
from temper.base.errors import TemperError


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answers an event of API Gateway.

    Args:
        context: the context object of Lambda's runtime, which knows how much time is left.
    """
    try:
        answer = function.loaded()
    except TemperError as error:
        print(f"error: {error}", file=sys.stderr)
        return function.refused(DEFECT)
    except Exception:  # the client gets no trace
        traceback.print_exc(file=sys.stderr)
        return function.refused(DEFECT)
    return answer(event, context.get_remaining_time_in_millis() / 1000)


def main() -> None:
    """Loads the models, which Lambda counts as initialization, and then answers events until it is ended."""
    from awslambdaric.__main__ import main as serve  # noqa: PLC0415 (Amazon's package, installed only there)

    function.loaded()
    serve(["awslambdaric", "apps.serve.lambda_handler.handler"])


if __name__ == "__main__":
    try:
        main()
    except TemperError as error:
        sys.exit(f"error: {error}")
