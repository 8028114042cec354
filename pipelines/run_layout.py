"""Names of the files of a run, and the run folder opened for reading.

    config.json  plan*.parquet  codebook.parquet  data/part-00042.parquet  quarantine/part-00042.parquet
    manifest.json  _SUCCESS

`config.json` claims the place; a file in `data/` is a committed shard; `_SUCCESS` says that all are and the
counts add up.
"""

CONFIG = "config.json"
CODEBOOK = "codebook.parquet"
MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
DATA_FOLDER = "data"
QUARANTINE_FOLDER = "quarantine"

_PART_PREFIX, _PART_SUFFIX = "part-", ".parquet"


def data_part(shard: int) -> str:
    """Path of a shard's data file; its existence is the commit."""
    return f"{DATA_FOLDER}/{_part(shard)}"


def quarantine_part(shard: int) -> str:
    """Path of a shard's quarantine file."""
    return f"{QUARANTINE_FOLDER}/{_part(shard)}"


def shard_of_part(name: str) -> int | None:
    """The shard a file name stands for, or None if it is no part."""
    digits = name.removeprefix(_PART_PREFIX).removesuffix(_PART_SUFFIX)
    return int(digits) if digits.isdecimal() and name == _part(int(digits)) else None


def plan_file(first_shard: int, last_shard: int, num_shards: int) -> str:
    """Name of the plan file that holds a range of shards: `plan.parquet` if it holds all of them."""
    if (first_shard, last_shard) == (0, num_shards - 1):
        return "plan.parquet"
    return f"plan-{first_shard:06d}-{last_shard:06d}.parquet"


def shards_of_plan_file(name: str, num_shards: int) -> range | None:
    """The shards a plan file holds, or None if the name is no plan file's."""
    if name == "plan.parquet":
        return range(num_shards)
    prefix, _, rest = name.removesuffix(_PART_SUFFIX).partition("-")
    first, _, last = rest.partition("-")
    if prefix != "plan" or not first.isdecimal() or not last.isdecimal():
        return None
    return range(int(first), int(last) + 1)


def _part(shard: int) -> str:
    return f"{_PART_PREFIX}{shard:05d}{_PART_SUFFIX}"
