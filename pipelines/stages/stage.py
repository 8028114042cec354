"""The one noun of the pipelines: a `Stage` takes an Arrow RecordBatch and gives one back.

A stage is a frozen dataclass of plain values: it pickles unbuilt, and opens its model in `setup()` on the
worker. It knows no engine; an engine reads `resources`, places the stage, and calls `run` with at most
`resources.batch_size` rows. Rows that cannot be processed come back beside the batch as `RejectedRow`, never
as an exception, so a bad picture costs its neighbours nothing.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one running copy of a stage needs.

    Attributes:
        num_cpus: CPU cores, > 0; may be a fraction.
        gpu_fraction: Share of one GPU, in [0, 1]; 0 means the stage runs on the CPU.
        batch_size: Most rows of one `run` call, >= 1.
    """

    num_cpus: float = 1.0
    gpu_fraction: float = 0.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuse values no engine can place."""
        if self.num_cpus <= 0 or not 0.0 <= self.gpu_fraction <= 1.0 or self.batch_size < 1:
            raise ValueError(
                "resources of a stage: expected num_cpus > 0, gpu_fraction in [0, 1] and batch_size >= 1,"
                f" got {self}. Change the stage's own settings."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedRow:
    """One row that a stage could not process, as it goes to the quarantine.

    Attributes:
        sample_id: The row's id in the plan.
        uri: Where its bytes are.
        stage: Name of the stage that gave up, e.g. `decode_images`.
        error_class: Short stable class of the error, e.g. `TruncatedImage`; reports group by it.
        message: One sentence for a person: what was expected, what was found.
    """

    sample_id: str
    uri: str
    stage: str
    error_class: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """What `Stage.run` gives back: the good rows in their order, and the rejected ones."""

    batch: pa.RecordBatch
    rejected: tuple[RejectedRow, ...] = ()


class Stage(ABC):
    """Base of every stage; subclasses are frozen dataclasses without slots.

    Built state (a model) lives in a `functools.cached_property` that `setup()` touches: it is written to the
    instance's `__dict__` without breaking the frozen fields, and `__getstate__` leaves it behind when the
    stage is pickled.
    """

    #: Name in quarantine rows and timings. Subclasses set it without annotation: it is no dataclass field.
    name = "stage"

    @property
    def resources(self) -> Resources:
        """CPUs, GPU share and batch size of one running copy."""
        return Resources()

    @property
    @abstractmethod
    def input_schema(self) -> pa.Schema:
        """Columns `run` needs; further columns of the batch are passed through."""

    @property
    @abstractmethod
    def output_schema(self) -> pa.Schema:
        """Columns `run` gives, before those passed through."""

    def setup(self) -> None:  # noqa: B027  (most stages have nothing to open)
        """Open models and files; called once on the worker before the first `run`."""

    @abstractmethod
    def run(self, batch: pa.RecordBatch) -> StageResult:
        """Process one batch.

        Args:
            batch: At most `resources.batch_size` rows with the columns of `input_schema`, and any others.

        Returns:
            Good rows in input order with `output_schema` first and the passed-through columns after it, and
            the rows rejected. Every input row is in exactly one of the two.
        """

    def passed_through(self, batch: pa.RecordBatch) -> tuple[str, ...]:
        """Names of the batch's columns that this stage neither needs nor makes, in their order."""
        own = {*self.input_schema.names, *self.output_schema.names}
        return tuple(name for name in batch.schema.names if name not in own)

    def check_input(self, batch: pa.RecordBatch) -> None:
        """Refuse a batch without the declared columns: a fault of the program, not of the data.

        Raises:
            TypeError: If a column is missing or has another type; the message names both.
        """
        for field in self.input_schema:
            index = batch.schema.get_field_index(field.name)
            got = "no such column" if index < 0 else str(batch.schema.field(index).type)
            if got != str(field.type):
                raise TypeError(
                    f"input column {field.name!r} of stage {self.name}: expected {field.type}, got {got}."
                    " Put the stages in the order in which their schemas fit."
                )

    def __getstate__(self) -> dict[str, Any]:
        """Only the declared fields travel; whatever `setup` opened stays on this machine."""
        fields = {field.name for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in self.__dict__.items() if name in fields}
