"""The Prometheus metrics at /metrics. They contain nothing about a patient or a user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from fracture_det.inference.service import PredictionService, Suitability
from fracture_det.registry.agreement import match_boxes

from .store import ShadowAnswer, StoredPrediction
from .store.shadow import said_by, said_of
from .watch import Watch, WatchCollector

if TYPE_CHECKING:
    from .served import Follower

STAGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Clients may send any method, and a label is kept as long as the process lives.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
SCORE_BUCKETS = tuple(step / 10 for step in range(1, 11))
DIFFERENCE_BUCKETS = tuple(step / 10 for step in range(-9, 11))


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
        self._service = service
        self._model = Info("fracture_model", "The detector that answers", registry=self._registry)
        self._swaps = Counter(
            "fracture_model_swaps_total",
            "Changes of the served version, by outcome",
            ["outcome"],
            registry=self._registry,
        )
        self._add_shadow()

    def _add_shadow(self) -> None:
        self._shadow = Counter(
            "fracture_shadow_total",
            "Radiographs offered to the shadow, by outcome",
            ["outcome"],
            registry=self._registry,
        )
        self._pairs = Counter(
            "fracture_shadow_findings_total",
            "Radiographs by the finding of the served version and that of the shadow",
            ["served", "shadow"],
            registry=self._registry,
        )
        self._boxes = Counter(
            "fracture_shadow_boxes_total", "Boxes at IoU .5, by who has them", ["of"], registry=self._registry
        )
        self._differences = Histogram(
            "fracture_shadow_score_difference",
            "Highest score of a radiograph, shadow minus served",
            buckets=DIFFERENCE_BUCKETS,
            registry=self._registry,
        )

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

    def follow(self, follower: Follower) -> None:
        """Say whether the registry's version is the one that answers."""
        problem = Gauge(
            "fracture_model_problem",
            "1 while the version that the registry serves is not the one that answers",
            registry=self._registry,
        )
        problem.set_function(lambda: follower.problem is not None)

    def swap(self, outcome: str) -> None:
        """Count a change of the served version."""
        self._swaps.labels(outcome).inc()

    def shadow(self, outcome: str) -> None:
        """Count a radiograph that the shadow was to see."""
        self._shadow.labels(outcome).inc()

    def shadow_pair(self, stored: StoredPrediction, answer: ShadowAnswer) -> None:
        """Count what the shadow said beside the served version."""
        served, shadow = said_of(stored), said_by(answer)
        self._pairs.labels(served.level, shadow.level).inc()
        self._differences.observe(shadow.score - served.score)
        for of, count in vars(match_boxes(served.boxes, shadow.boxes)).items():
            self._boxes.labels(of).inc(count)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        info = self._service.info
        self._model.info({"name": info.name, "version": info.version or "", "sha256": info.sha256 or ""})
        return generate_latest(self._registry)
