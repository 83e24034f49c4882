"""Figures for a monitoring system in Prometheus' text format; each server has a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counts:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "temper_requests", "Requests that were answered", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "temper_request_seconds", "From the head of a request to its answer", ["path"], registry=self.registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self.photos = Counter(
            "temper_photos", "Photos, by the status that each got", ["status"], registry=self.registry
        )
        self.predictions = Counter("temper_predictions", "Photos predicted", ["model"], registry=self.registry)
        self.reloads = Counter(
            "temper_model_replacements", "Models that were replaced", ["model", "taken_up"], registry=self.registry
        )
        self.working = Gauge("temper_requests_working", "Requests that are worked on", registry=self.registry)
        self.bytes = Gauge("temper_request_bytes", "Bytes of requests that are held", registry=self.registry)
        self.restarts = Gauge("temper_decoders_lost", "Decoders that a photo ended", registry=self.registry)

    def text(self) -> bytes:
        """All figures."""
        found: bytes = generate_latest(self.registry)
        return found
