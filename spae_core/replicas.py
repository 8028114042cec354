"""Several processes that train one model together: each sees a share of every batch, all take the same step.

A replica computes its share of the loss and averages gradients with the others. Where a term is not a mean over
pictures (the entropy of the batch's mean assignment, LeCam's squared means, the dynamic weight), what goes into it is
averaged first, so that the step is that of one process on the whole batch. Who starts the processes is not this
module's business: any initialised process group of torch will do.

Letters: W replicas, B pictures of a step over all replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from spae_core.errors import ModelError


@dataclass(frozen=True, slots=True)
class Replicas:
    """One replica among W; alone (the default) every method does nothing.

    Attributes:
        rank: Of this process, 0 to W − 1. Rank 0 writes files.
        world_size: W.
        device: Where tensors must be for the others to receive them.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    @classmethod
    def of_process_group(cls, device: str) -> Replicas:
        """The replicas of torch's default process group, which must be initialised."""
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    def share_of(self, batch_size: int) -> range:
        """Positions of a batch that are this replica's.

        Raises:
            ModelError: If the batch cannot be shared equally, which the averages rest on.
        """
        if batch_size % self.world_size:
            raise ModelError(
                f"batch_size: expected a multiple of the {self.world_size} workers, got {batch_size}. "
                f"Use --batch-size {-(-batch_size // self.world_size) * self.world_size} or other workers."
            )
        share = batch_size // self.world_size
        return range(self.rank * share, (self.rank + 1) * share)

    def part_of(self, count: int) -> int:
        """How many of `count` things this replica looks at, rounded up."""
        return -(-count // self.world_size)

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the replicas, with gradient.

        Every replica must go on with the mean in the same way; then averaging the replicas' gradients afterwards gives
        the gradient of what was made of the mean.
        """
        if self.world_size == 1:
            return value
        mean: Tensor = _MeanOverReplicas.apply(value, self)
        return mean

    def total(self, counts: Tensor) -> Tensor:
        """Sum over the replicas, on the device of `counts`, without gradient."""
        if self.world_size == 1:
            return counts
        total = counts.detach().to(self.device, copy=True)
        distributed.all_reduce(total)
        return total.to(counts.device)

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient by its mean over the replicas; a gradient that is absent counts as 0."""
        if self.world_size == 1:
            return
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters
        ]
        # One message instead of one for each of hundreds of tensors.
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world_size
        parts = flat.split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def start_alike(self, tensors: Iterable[Tensor]) -> None:
        """Give every replica the tensors of rank 0, in place."""
        if self.world_size == 1:
            return
        for tensor in tensors:
            sent = tensor.detach().to(self.device, copy=True).contiguous()
            distributed.broadcast(sent, src=0)
            with torch.no_grad():
                tensor.copy_(sent)


class _MeanOverReplicas(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, replicas: Replicas) -> Tensor:  # noqa: ANN401 - torch's own
        context.replicas = replicas
        return replicas.total(value) / replicas.world_size

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's own
        # Each of the W results depends on this value with weight 1/W, and all W losses flow back into it.
        replicas: Replicas = context.replicas
        return replicas.total(gradient) / replicas.world_size, None
