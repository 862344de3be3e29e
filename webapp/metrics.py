"""The Prometheus metrics at /metrics. They contain nothing about a patient or a user."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fracture_det.inference.service import PredictionService, Suitability

from .store import StoredPrediction
from .watch import Watch, WatchCollector

STAGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Clients may send any method, and a label is kept as long as the process lives.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
SCORE_BUCKETS = tuple(step / 10 for step in range(1, 11))


class Metrics:
    """The metrics of one app."""

    def __init__(self, service: PredictionService, watch: Watch) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "fracture_requests_total", "Answered requests", ["method", "endpoint", "status"], registry=self._registry
        )
        self._rejects = Counter(
            "fracture_rejects_total", "Requests without a result, by reason", ["reason"], registry=self._registry
        )
        self._findings = Counter(
            "fracture_findings_total", "Analysed radiographs by finding", ["finding"], registry=self._registry
        )
        self._unsuitable = Counter(
            "fracture_unsuitable_total",
            "Pictures that do not look like a limb radiograph, by reason, and whether they were analysed anyway",
            ["reason", "analysed"],
            registry=self._registry,
        )
        self._stages = Histogram(
            "fracture_stage_seconds", "Time in each stage", ["stage"], buckets=STAGE_BUCKETS, registry=self._registry
        )
        self._scores = Histogram(
            "fracture_highest_score", "Highest score of a radiograph", buckets=SCORE_BUCKETS, registry=self._registry
        )
        waiting = Gauge("fracture_queue_depth", "Decoded radiographs waiting for the detector", registry=self._registry)
        waiting.set_function(lambda: service.waiting)
        ready = Gauge("fracture_ready", "1 while the detector takes radiographs", registry=self._registry)
        ready.set_function(lambda: service.ready)
        self._registry.register(WatchCollector(watch))

    def request(self, method: str, endpoint: str | None, status: int) -> None:
        """Count a request and its status."""
        self._requests.labels(method if method in METHODS else "other", endpoint or "none", status).inc()

    def reject(self, reason: str) -> None:
        """Count a rejected request."""
        self._rejects.labels(reason).inc()

    def unsuitable(self, suitability: Suitability, *, analysed: bool = False) -> None:
        """Count a picture that does not look like a radiograph of a limb."""
        self._unsuitable.labels(suitability.reason, "yes" if analysed else "no").inc()

    def result(self, stored: StoredPrediction) -> None:
        """Count an analysed radiograph."""
        if stored.suitability is not None and not stored.suitability.ok:
            self.unsuitable(stored.suitability, analysed=True)
        self._findings.labels(stored.finding).inc()
        self._scores.observe(float(stored.detections.scores[0]) if len(stored.detections) else 0.0)
        for name, value in stored.latency_ms.items():
            self._stages.labels(name).observe(value / 1000)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
