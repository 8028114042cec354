"""The manifest of a finished run, `manifest/1`: counts that add up, hashes of the files, where time went."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from schemas.versions import MANIFEST, SchemaError, check_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class PartEntry:
    """One committed shard.

    Attributes:
        shard: Number of the shard.
        path: Data file, relative to the run.
        sha256: Hash of the data file's bytes.
        size_bytes: Size of the data file.
        num_rows: Pictures in it.
        num_quarantined: Rows of its plan that it lacks: they went to the quarantine when it was written; a later
            part of the shard may have them.
        quarantine_sha256: Hash of the quarantine file's bytes.
    """

    shard: int
    path: str
    sha256: str
    size_bytes: int
    num_rows: int
    num_quarantined: int
    quarantine_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundEntry:
    """One retry or extension, finished.

    Attributes:
        number: 1, 2, …; retries and extensions are counted together.
        kind: `retry` or `extend`.
        num_rows: Rows it did.
        num_new: Inputs that came.
        num_changed: Inputs that were done again because they had changed.
        num_deleted: Inputs that had gone; their tokens stay.
        deleted_path: Parquet file that lists those, or None.
        plan_sha256: Hash of its plan file.
        quarantine_sha256: Hash of each quarantine file of its own, by path.
    """

    number: int
    kind: str
    num_rows: int
    num_new: int
    num_changed: int
    num_deleted: int
    deleted_path: str | None
    plan_sha256: str
    quarantine_sha256: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTiming:
    """Where one stage's time went, over the process that finished the run.

    Attributes:
        busy_seconds: Working, summed over its workers.
        wait_seconds: Waiting for the stage before it, e.g. the model for pictures.
        idle_seconds: Kept from working by those after it, e.g. threads that have decoded as far ahead as they may, or
            by other work of the same thread. Stages that share threads show the same idle time.
        num_workers: Threads or processes that ran it.
    """

    busy_seconds: float
    wait_seconds: float
    num_workers: int
    idle_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything about a finished run that a reader or an auditor asks first.

    Attributes:
        num_planned: Inputs of the run and its extensions; equals num_ok + num_quarantined + num_filtered.
        num_ok: Rows in `data/`.
        num_quarantined: Rows in `quarantine/` that are in no data file.
        num_filtered: Rows left out on request.
        quarantined_by_reason: `stage/error_class` -> rows.
        parts: One entry a data file: by shard, and for each shard in the order in which they were made.
        rounds: Retries and extensions since the run was first finished.
        bytes_per_image: Mean size in the data files, or 0 without pictures.
        plan_sha256: Hash of the plan.
        model_sha256: Hash of the model's weights.
        codebook_sha256: Hash of the codebook.
        codebook_table_sha256: Hash of the bytes of `codebook.parquet`.
        num_processed: Rows handled by the process that finished the run; fewer than planned after a resume.
        wall_seconds: Time that process took for them.
        images_per_second: num_processed / wall_seconds.
        stages: Timing of each stage, by name.
        bottleneck: Name of the stage that set the pace, or None if nothing ran.
    """

    num_planned: int
    num_ok: int
    num_quarantined: int
    num_filtered: int = 0
    quarantined_by_reason: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[PartEntry, ...]
    rounds: tuple[RoundEntry, ...] = ()
    bytes_per_image: float
    plan_sha256: str
    model_sha256: str
    codebook_sha256: str
    codebook_table_sha256: str
    num_processed: int
    wall_seconds: float
    images_per_second: float
    stages: Mapping[str, StageTiming] = field(default_factory=dict)
    bottleneck: str | None = None

    def __post_init__(self) -> None:
        """Refuse counts that do not add up: a manifest is a promise."""
        accounted = self.num_ok + self.num_quarantined + self.num_filtered
        if accounted != self.num_planned:
            raise ValueError(
                f"counts of the manifest: expected ok + quarantined + filtered = {self.num_planned} planned, "
                f"got {self.num_ok} + {self.num_quarantined} + {self.num_filtered} = {accounted}. "
                "Run `spae verify` to see which rows are missing or doubled."
            )

    def to_json(self) -> str:
        """The manifest as indented JSON."""
        return json.dumps({"schema": MANIFEST, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Manifest":
        """Read a manifest back.

        Args:
            text: Content of `manifest.json`.
            where: Its path or url, for messages.

        Raises:
            SchemaError: If the text is no manifest of this version.
        """
        try:
            values = json.loads(text)
            check_schema(values.pop("schema", None), MANIFEST, where=where)
            values["parts"] = tuple(PartEntry(**part) for part in values["parts"])
            values["rounds"] = tuple(RoundEntry(**entry) for entry in values.get("rounds", ()))
            values["stages"] = {name: StageTiming(**timing) for name, timing in values["stages"].items()}
            return cls(**values)
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise SchemaError(
                f"manifest {where}: expected JSON of schema {MANIFEST}, got something else ({error}). "
                "Delete the file and run `spae tokenize` again; it writes a new one."
            ) from error
