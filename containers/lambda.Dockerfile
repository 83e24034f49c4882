# The function for AWS Lambda (docs/serve.md), with the models of models/export inside:
#
#     docker build -f containers/lambda.Dockerfile --provenance=false -t temper-lambda .
#
# Where models/export holds symbolic links: dvc unprotect models/export first. Detectors' weights are not inside.
# The base image is pinned by its tag, so that it gets security fixes; for equal images each time, name its digest too.
FROM python:3.11-slim-bookworm AS packages
COPY requirements-serve.lock /opt/
RUN python -m venv --without-pip /opt/venv && \
    python -m pip --python /opt/venv/bin/python install --no-cache-dir --only-binary :all: --require-hashes \
    -r /opt/requirements-serve.lock

FROM python:3.11-slim-bookworm
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY temper temper
COPY apps apps
RUN /opt/venv/bin/python -m compileall -q temper apps
COPY models/export models
ENV PYTHONUNBUFFERED=1
USER 10001:10001
ENV TEMPER_OPTIONS="--models models/classifier.tflite"
# Lambda asks no container how it is: it waits for the answer to each event, and starts another where there is none.
HEALTHCHECK NONE
ENTRYPOINT ["/opt/venv/bin/python", "-m", "apps.serve.lambda_handler"]
