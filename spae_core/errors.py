"""Errors that a user of the model can act on; their message is the whole story."""

# What gguf's reader, which checks little, raises over damaged files; the last one over a tensor type it does not know.
GGUF_READER_ERRORS = (OSError, ValueError, IndexError, KeyError, NotImplementedError)


class ModelError(ValueError):
    """A model, codebook or checkpoint is unknown, damaged or does not fit the others.

    Attributes:
        exit_code: What a command that meets this error returns to the shell (2: usage).
    """

    exit_code = 2


class TrainingError(RuntimeError):
    """Training cannot go on; the last good checkpoint is kept and named in the message.

    Attributes:
        exit_code: What a command that meets this error returns to the shell (3: bad data).
    """

    exit_code = 3
