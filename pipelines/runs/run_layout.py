"""Names of the files of a run, and the run folder opened for reading.

    config.json  plan*.parquet  codebook.parquet  data/part-00042.parquet  quarantine/part-00042.parquet
    rounds/00001.json  data/part-00042-retry-1.parquet  quarantine/part-00042-extend-2.parquet
    manifest.json  _SUCCESS

`config.json` claims the place; a file in `data/` is a committed shard; `_SUCCESS` says that all are and the
counts add up. A round is a retry or an extension of a run; they are counted together, from 1.
"""

import re

CONFIG = "config.json"
CODEBOOK = "codebook.parquet"
MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
DATA_FOLDER = "data"
QUARANTINE_FOLDER = "quarantine"

ROUNDS_FOLDER = "rounds"

_PART_PREFIX, _PART_SUFFIX = "part-", ".parquet"
_ANY_PART = re.compile(r"part-(?P<shard>\d+)(?:-(?P<kind>retry|extend)-(?P<round>[1-9]\d*))?\.parquet")


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


def retry_part(shard: int, round_number: int) -> str:
    """Path of the data file with the rows of a shard that a retry mended."""
    return f"{DATA_FOLDER}/{_part(shard, f'-retry-{round_number}')}"


def round_quarantine_part(shard: int, kind: str, round_number: int) -> str:
    """Path of the quarantine file of the rows that a round did again, kind `retry` or `extend`."""
    return f"{QUARANTINE_FOLDER}/{_part(shard, f'-{kind}-{round_number}')}"


def round_of_part(name: str) -> tuple[int, int] | None:
    """(shard, round) that a file name below `data/` or `quarantine/` stands for; round 0 is the run itself."""
    match = _ANY_PART.fullmatch(name)
    if match is None:
        return None
    shard = int(match["shard"])
    number = int(match["round"] or 0)
    suffix = f"-{match['kind']}-{number}" if match["kind"] else ""
    return (shard, number) if name == _part(shard, suffix) else None


def round_file(number: int) -> str:
    """Path of the file that claims a round."""
    return f"{ROUNDS_FOLDER}/{number:05d}.json"


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


def _part(shard: int, suffix: str = "") -> str:
    return f"{_PART_PREFIX}{shard:05d}{suffix}{_PART_SUFFIX}"
