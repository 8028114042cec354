import pytest
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines.engines.beam.options import (
    num_local_workers,
    open_pipeline,
    open_runner,
    parse_options,
    runs_here,
    uses_processes,
)
from pipelines.errors import UsageError

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("flags", [[], ["--runner=DirectRunner"], ["--runner", "DirectRunner"]])
def test_this_machine_means_the_python_runner_and_never_one_that_is_downloaded(flags):
    if len(flags) == 2:
        with pytest.raises(UsageError, match=r"got 'DirectRunner'\. Write name and value as one word."):
            parse_options(flags, num_workers=None)
        return
    options = parse_options(flags, num_workers=None)
    assert runs_here(options)
    assert isinstance(open_runner(options), FnApiRunner)


@pytest.mark.parametrize(
    ("num_workers", "flags", "expected"),
    [
        (None, [], (1, "in_memory")),
        (1, [], (1, "in_memory")),
        (3, [], (3, "multi_processing")),
        (3, ["--direct_running_mode=multi_threading"], (3, "multi_threading")),
        (None, ["--direct_num_workers=2"], (2, "multi_processing")),
    ],
)
def test_several_workers_are_processes_unless_the_options_say_otherwise(num_workers, flags, expected):
    options = parse_options(flags, num_workers=num_workers)
    assert (num_local_workers(options), options.view_as(DirectOptions).direct_running_mode) == expected
    assert uses_processes(options) is (expected[1] == "multi_processing")


@pytest.mark.parametrize(
    ("flags", "num_workers", "message"),
    [
        (["--projct=mine"], None, "expected options of Apache Beam, got --projct. Check its name."),
        (["--direct_num_workers=many"], None, "expected options of Apache Beam, got --direct_num_workers=many."),
        (["--runner=FlinkRunner"], 4, "--num-workers: expected none with FlinkRunner, which starts its own, got 4."),
    ],
)
def test_options_that_would_be_ignored_are_refused(flags, num_workers, message):
    with pytest.raises(UsageError, match=message):
        parse_options(flags, num_workers=num_workers)


def test_options_only_a_job_service_knows_are_passed_on_to_it():
    options = parse_options(
        ["--runner=FlinkRunner", "--flink_master=cluster:8081", "--parallelism=8"], num_workers=None
    )
    assert not runs_here(options)
    assert options.get_all_options(retain_unknown_options=True)["parallelism"] in (8, "8")


def test_a_runner_that_does_not_exist_is_named():
    with pytest.raises(UsageError, match="runner NoSuchRunner: expected one of Apache Beam's"):
        open_runner(parse_options(["--runner=NoSuchRunner"], num_workers=None))


def test_a_runner_that_wants_more_options_says_which():
    options = parse_options(["--runner=DataflowRunner"], num_workers=None)
    with pytest.raises(UsageError, match=r"expected what DataflowRunner needs, got: (?s:.*)required option: project"):
        open_pipeline(options)
