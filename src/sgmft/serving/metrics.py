"""Metrics for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sgmft.locator.prediction import Prediction
from sgmft.serving.engine import InferenceEngine

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_POSTS = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """Counters of one server.

    Args:
        engine: the one whose batches, requests and restarts are counted.
    """

    def __init__(self, engine: InferenceEngine) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self._requests = Counter(
            "sgmft_requests", "Requests answered.", ["route", "status"], registry=own
        )
        self._seconds = Histogram(
            "sgmft_request_seconds",
            "Time to the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self._posts = Counter(
            "sgmft_posts", "Posts predicted: label, abstained or error.", ["outcome"], registry=own
        )
        self._batches = Histogram(
            "sgmft_batch_posts", "Posts that the model saw together.", buckets=_POSTS, registry=own
        )
        engine.on_batch = self._batches.observe
        for name, what, value in (
            ("inside", "Requests being read, waiting or answered.", lambda: engine.places.taken),
            ("ready", "Whether the model can answer.", lambda: float(engine.ready)),
            ("worker_restarts", "How often the worker was started again.", lambda: engine.restarts),
        ):
            Gauge(f"sgmft_{name}", what, registry=own).set_function(value)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that is answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_posts(self, predictions: Iterable[Prediction]) -> None:
        """Count posts that are predicted."""
        outcomes = Tally(
            "error" if x.error else "abstained" if x.abstained else "label" for x in predictions
        )
        for outcome, count in outcomes.items():
            self._posts.labels(outcome).inc(count)

    def text(self) -> bytes:
        """Return them as Prometheus reads them."""
        return generate_latest(self._registry)
