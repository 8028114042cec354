"""A retry or an extension of a run, `round/1`: what is to be done, fixed before any of it is.

The run itself is round 0. Rounds are numbered from 1 and done one after the other; the file of a round is created only
if it is absent, so two commands at once work on the same one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from schemas.versions import ROUND, SchemaError, check_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Content of `rounds/00001.json`.

    Attributes:
        number: 1, 2, ….
        kind: `retry`: rows of the quarantine once more. `extend`: new and changed inputs.
        plan_path: Its rows, with the columns of the run's plan; a retry's also has `attempt`.
        plan_sha256: Hash of the plan file's bytes.
        num_rows: Rows of its plan.
        first_new_shard: Shards of the run before it; shards from here on are its own.
        num_shards: Shards of the run after it.
        num_new: Inputs that were not there before; their shards are new ones.
        num_changed: Inputs whose content or columns changed; they stay in their shard.
        num_deleted: Inputs of the plan that are not listed any more; their tokens stay.
        deleted_path: Parquet file with `sample_id` and `uri` of those, or None.
        error_classes: What a retry was restricted to; empty for everything.
    """

    number: int
    kind: Literal["retry", "extend"]
    plan_path: str
    plan_sha256: str
    num_rows: int
    first_new_shard: int
    num_shards: int
    num_new: int = 0
    num_changed: int = 0
    num_deleted: int = 0
    deleted_path: str | None = None
    error_classes: Sequence[str] = ()

    def to_json(self) -> str:
        """The round as indented JSON."""
        return json.dumps({"schema": ROUND, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Round":
        """Read a round back.

        Raises:
            SchemaError: If the text is no round of this version.
        """
        try:
            values = json.loads(text)
            check_schema(values.pop("schema", None), ROUND, where=where)
            values["error_classes"] = tuple(values["error_classes"])
            return cls(**values)
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise SchemaError(
                f"round {where}: expected JSON of schema {ROUND}, got something else ({error}). "
                "Copy the file again from where the run was written."
            ) from error
