# The server of exported models (docs/serve.md), with the models of models/export inside:
#
#     docker build -f containers/serve.Dockerfile -t temper-serve .
#     docker run --rm -p 8000:8000 temper-serve
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
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["/opt/venv/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["/opt/venv/bin/python", "-m", "apps.serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--models", "models/classifier.tflite"]
