"""How many pictures are on the device at once: fewer after each time its memory did not suffice, for the whole run.

The batch shape that the model computes in is not touched: other shapes add up in another order, their latents differ in
the last digits (on a CPU: equal up to 8 pictures, not at 16 and 32), and a word can flip. So that shape is small and
part of a run's settings, a block on the device is several of them, and halving the block is exact.
"""

from dataclasses import dataclass

from pipelines.errors import UsageError

#: At the smallest block somebody else may have had the memory for a moment: this often it is tried again.
_TRIES_AT_THE_BOTTOM = 2


@dataclass(kw_only=True)
class MemoryLadder:
    """The number of pictures that fit, as far as is known.

    Attributes:
        batch_size: Pictures of one computation; a block is a multiple of it.
        block_size: Pictures on the device at once, now.
    """

    batch_size: int
    block_size: int
    _num_failures_at_the_bottom: int = 0

    def step_down(self, error: Exception, num_pictures: int) -> None:
        """Halve the block after memory did not suffice, and give back what the allocator keeps.

        Args:
            error: What the device said.
            num_pictures: Pictures of the block that did not fit; the last one of a shard is smaller.

        Raises:
            UsageError: If a single computation does not fit, also when tried again.
        """
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        num_batches = min(num_pictures, self.block_size) // self.batch_size
        if num_batches > 1:
            self.block_size = num_batches // 2 * self.batch_size
            return
        self._num_failures_at_the_bottom += 1
        if self._num_failures_at_the_bottom > _TRIES_AT_THE_BOTTOM:
            raise UsageError(
                f"batch size: expected a batch that fits the device's memory, got {self.batch_size} pictures. "
                f"Free the device, or use --batch-size {max(1, self.batch_size // 2)} and a new --out."
            ) from error

    def step_done(self) -> None:
        """A block went through."""
        self._num_failures_at_the_bottom = 0
