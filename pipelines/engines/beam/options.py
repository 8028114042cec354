"""Beam's own options: which runner, and what it is told.

Without a runner the pipeline runs on this machine, on Beam's Python runner by name: the one Beam would choose
first is a program it downloads.
"""

from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions, WorkerOptions
from apache_beam.pipeline import Pipeline
from apache_beam.runners.runner import PipelineRunner, create_runner

from pipelines.errors import UsageError

#: Names that mean Beam's Python runner of this machine.
_LOCAL_RUNNERS = frozenset({"directrunner", "fnapirunner", "local", "direct"})


def parse_options(flags: Sequence[str], *, num_workers: int | None) -> PipelineOptions:
    """Beam's options from flags such as `--runner=DataflowRunner`.

    Args:
        flags: What follows `--` on the command line.
        num_workers: Worker processes on this machine, >= 1. Default: 1.

    Raises:
        UsageError: If a word is no option of Beam's, or workers are asked for that are not ours to start.
    """
    strays = [flag for flag in flags if not flag.startswith("--")]
    if strays:
        raise UsageError(
            f"options after --: expected words like --runner=DataflowRunner, got {strays[0]!r}. "
            "Write name and value as one word."
        )
    try:
        options = PipelineOptions(list(flags))
        given = set(options.get_all_options(drop_default=True, retain_unknown_options=True))
        known = set(options.get_all_options())
    except SystemExit as error:  # argparse has printed which option it is.
        raise UsageError(
            f"options after --: expected options of Apache Beam, got {' '.join(flags)}. Correct the one named above."
        ) from error
    if not runs_here(options):
        if num_workers is not None:
            runner = options.view_as(StandardOptions).runner
            raise UsageError(
                f"--num-workers: expected none with {runner}, which starts its own, got {num_workers}. "
                "Give the runner's option after --, e.g. --max_num_workers=8 or --parallelism=8."
            )
        return options
    # Other runners have options that only their job service knows; this one has not.
    unknown = sorted(given - known)
    if unknown:
        raise UsageError(f"options after --: expected options of Apache Beam, got --{unknown[0]}. Check its name.")
    direct = options.view_as(DirectOptions)
    if "direct_num_workers" not in given:
        direct.direct_num_workers = num_workers or 1
    if "direct_running_mode" not in given and direct.direct_num_workers != 1:
        direct.direct_running_mode = "multi_processing"
    if "default_sdk_harness_log_level" not in given:
        # Worker processes would report each connection they open.
        options.view_as(WorkerOptions).default_sdk_harness_log_level = "ERROR"
    return options


def runs_here(options: PipelineOptions) -> bool:
    """Whether the pipeline runs on Beam's runner of this machine."""
    name = options.view_as(StandardOptions).runner
    return name is None or name.rpartition(".")[2].lower() in _LOCAL_RUNNERS


def num_local_workers(options: PipelineOptions) -> int:
    """Workers of the runner of this machine; 0 stands for one each core."""
    from os import cpu_count

    return options.view_as(DirectOptions).direct_num_workers or cpu_count() or 1


def uses_processes(options: PipelineOptions) -> bool:
    """Whether the runner of this machine starts processes of its own."""
    return bool(options.view_as(DirectOptions).direct_running_mode == "multi_processing")


def open_runner(options: PipelineOptions) -> PipelineRunner:
    """The runner the options name.

    Raises:
        UsageError: If there is none of that name, or a package of it is absent.
    """
    if runs_here(options):
        from pipelines.engines.beam.local_runner import open_local_runner

        return open_local_runner(options)
    name = options.view_as(StandardOptions).runner
    try:
        return create_runner(name)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"runner {name}: expected one of Apache Beam's with its packages installed, got: {error}. "
            "Check the name; DataflowRunner needs apache-beam[gcp]."
        ) from error


def open_pipeline(options: PipelineOptions) -> Pipeline:
    """An empty pipeline for the runner the options name.

    Raises:
        UsageError: If there is no such runner, or it wants further options.
    """
    runner = open_runner(options)
    try:
        return Pipeline(runner=runner, options=options)
    except ValueError as error:
        raise UsageError(
            f"options after --: expected what {type(runner).__name__} needs, got: {error}. "
            "Add what is missing and run the same command again."
        ) from error
