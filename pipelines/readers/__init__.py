"""Find the inputs of a run: folders, globs, files and containers of pictures, here or behind any fsspec url.

`open_inputs` chooses the reader of each INPUT of the command line; `list_inputs` is the stream of all of them, so
a plan of any size needs little memory. What a reader leaves out it counts and says; a file given by its own name
is always taken, whatever its extension, and if it is no picture it ends in the quarantine with its reason. What
cannot be read of a container (a truncated tar) is an input too: it is planned, quarantined and counted.

uri: the absolute path of a local file as it is, or the url with its protocol (`gs://bucket/photos/a.jpg`); of a
record in a container `<uri of the container>#<name>`, such as `photos.tar#000123.jpg` or `a.parquet#row=17`.
"""

from pipelines.readers.entry import InputEntry, InputReader, ListingNotes, ReadOptions, Record
from pipelines.readers.file_kinds import IMAGE_EXTENSIONS
from pipelines.readers.opening import list_inputs, open_inputs

__all__ = [
    "IMAGE_EXTENSIONS",
    "InputEntry",
    "InputReader",
    "ListingNotes",
    "ReadOptions",
    "Record",
    "list_inputs",
    "open_inputs",
]
