"""Errors a user can act on: the command line prints the message, no traceback, and exits with their code."""


class PipelineError(Exception):
    """Base of the errors below; a message reads `<what>: expected <x>, got <y>. <remedy>.`."""

    exit_code = 1


class ShardsFailedError(PipelineError):
    """Some shards could not be written; the others are done and a re-run does only what is missing."""

    exit_code = 1


class UsageError(PipelineError):
    """The command cannot be run as given: no inputs, another plan in the same place, unknown options."""

    exit_code = 2


class BadDataError(PipelineError):
    """The data is not what it claims to be: too much quarantined, a wrong checksum, another codebook."""

    exit_code = 3


class StorageFullError(PipelineError):
    """The place a run writes to has no room left; what is committed stays, the rest can resume."""

    exit_code = 1
