"""Our numbers on Ray's own dashboard and Prometheus page, beside those Ray Data keeps itself."""


class WorkerMetrics:
    """Pictures done, pictures quarantined, and seconds the model was busy, of one actor."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._done = Counter("spae_pictures_done", "Pictures through the model or set aside.")
        self._quarantined = Counter("spae_pictures_quarantined", "Pictures set aside, by whatever stage.")
        self._busy = Counter("spae_model_busy_seconds", "Seconds the model worked.")
        self._rate = Gauge("spae_model_pictures_per_second", "Pace of the model while it works, latest block.")
        self._block = Histogram(
            "spae_model_block_seconds",
            "Seconds the model took for a block of pictures.",
            boundaries=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
        )

    def add(self, *, num_done: int, num_quarantined: int, busy_seconds: float) -> None:
        """Count a block.

        Args:
            num_done: Its rows.
            num_quarantined: Rejected ones among them.
            busy_seconds: Time of the model for it.
        """
        if not num_done:
            return
        self._done.inc(num_done)
        self._block.observe(busy_seconds)
        if num_quarantined:
            self._quarantined.inc(num_quarantined)
        if busy_seconds > 0:
            self._busy.inc(busy_seconds)
            self._rate.set(num_done / busy_seconds)
