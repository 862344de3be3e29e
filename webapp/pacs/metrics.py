"""The Prometheus metrics of the node. They contain nothing about a patient, and no UID."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..store import StoreUnavailable
from ..store.pacs_status import PacsStatus

DELAY_BUCKETS = (1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600)


class PacsMetrics:
    """The metrics of one node."""

    def __init__(self, status: PacsStatus) -> None:
        self._registry = registry = CollectorRegistry()
        self._associations = Counter(
            "fracture_pacs_associations_total", "Associations by outcome", ["outcome"], registry=registry
        )
        self._received = Counter(
            "fracture_pacs_received_total", "Objects that were taken, by novelty", ["novelty"], registry=registry
        )
        self._refused = Counter(
            "fracture_pacs_refused_total", "Objects that were not taken, by reason", ["reason"], registry=registry
        )
        self._results = Counter(
            "fracture_pacs_results_total", "Objects by what was said of them", ["result"], registry=registry
        )
        self._failures = Counter(
            "fracture_pacs_failures_total", "Attempts that failed, by step", ["step"], registry=registry
        )
        self._delays = Histogram(
            "fracture_pacs_delivery_seconds",
            "From an answer to the delivery of each of its outputs",
            buckets=DELAY_BUCKETS,
            registry=registry,
        )
        registry.register(_QueueCollector(status))

    def association(self, outcome: str) -> None:
        """Count an association."""
        self._associations.labels(outcome).inc()

    def received(self, novelty: str) -> None:
        """Count an object that was answered."""
        self._received.labels(novelty).inc()

    def refused(self, reason: str) -> None:
        """Count an object that was not taken."""
        self._refused.labels(reason).inc()

    def result(self, result: str) -> None:
        """Count what was said of an object."""
        self._results.labels(result).inc()

    def failure(self, step: str) -> None:
        """Count an attempt that failed."""
        self._failures.labels(step).inc()

    def delay(self, seconds: float) -> None:
        """Count a delivery and how long it took."""
        self._delays.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class _QueueCollector(Collector):
    """What the queue holds at the moment it is asked for; nothing while the database does not answer."""

    def __init__(self, status: PacsStatus) -> None:
        self._status = status

    def collect(self):  # type: ignore[no-untyped-def]
        try:
            status = self._status.status()
        except StoreUnavailable:
            return
        objects = GaugeMetricFamily("fracture_pacs_objects", "Objects in the queue", labels=["state"])
        for state, count in status.objects.items():
            objects.add_metric([state], count)
        deliveries = GaugeMetricFamily(
            "fracture_pacs_deliveries", "Outputs in the queue", labels=["destination", "state"]
        )
        for (destination, state), count in status.deliveries.items():
            deliveries.add_metric([destination, state], count)
        ages = GaugeMetricFamily("fracture_pacs_oldest_seconds", "Age of the oldest that waits", labels=["what"])
        ages.add_metric(["object"], status.oldest_object_s)
        ages.add_metric(["delivery"], status.oldest_delivery_s)
        studies = GaugeMetricFamily("fracture_pacs_studies", "Studies", labels=["state"])
        studies.add_metric(["due"], status.studies_due)
        studies.add_metric(["answered"], status.studies_answered)
        yield from (objects, deliveries, ages, studies)
