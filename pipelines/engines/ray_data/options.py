"""What a user may say about where Ray runs the work."""

from dataclasses import dataclass

from pipelines.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class RayOptions:
    """Settings of the Ray engine; none of them changes the result.

    Attributes:
        address: Cluster to use: `auto` or `HOST:PORT`. Default: one started on this machine for
            the run, or the one this process is connected to already.
        min_actors: Copies of the model to begin with, >= 1.
        max_actors: Most copies; the pool grows while pictures wait for it. Default: as many as the GPUs hold, and
            one for every four CPU cores without GPUs.
        max_bytes_in_flight: Most bytes of decoded pictures in Ray's object store at once; reading and decoding
            wait beyond that. Default: Ray Data's own, half of the store.
        ship_code: Send this code to the workers. Default: to a cluster given by `address`.
    """

    address: str | None = None
    min_actors: int = 1
    max_actors: int | None = None
    max_bytes_in_flight: int | None = None
    ship_code: bool | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that no pool can keep."""
        if self.min_actors < 1 or (self.max_actors is not None and self.max_actors < self.min_actors):
            most = "no limit" if self.max_actors is None else self.max_actors
            raise UsageError(
                f"copies of the model: expected 1 <= fewest <= most, got {self.min_actors} to {most}. "
                "Set --num-workers to at least --min-workers."
            )
