"""The user's own columns by name: which may be kept beside ours."""

import re

from pipelines.errors import UsageError
from schemas.tokens import SAMPLE_FIELDS

_TOKEN_COLUMN = re.compile(r"tokens_\d+")


def parse_kept_columns(text: str | None) -> tuple[str, ...]:
    """The names in `--keep-columns caption,label`.

    Raises:
        UsageError: If one is named twice, is empty, or has the name of a column of the token dataset.
    """
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    own = [field.name for field in SAMPLE_FIELDS]
    for position, name in enumerate(names):
        if not name or name in names[:position]:
            raise UsageError(
                f"--keep-columns {text}: expected each column once, got {name or 'an empty name'}. "
                "Write them like caption,label."
            )
        if name in own or _TOKEN_COLUMN.fullmatch(name):
            raise UsageError(
                f"--keep-columns {name}: expected a name the dataset does not use itself "
                f"({', '.join(own)}, tokens_0 …), got one of these. Rename the column in the input."
            )
    return names
