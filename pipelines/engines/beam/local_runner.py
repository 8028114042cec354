"""Beam's runner of this machine, with worker processes that start from any folder."""

import shlex
import sys

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_provision_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner, RunnerResult
from apache_beam.runners.portability.portable_runner import JobServiceHandle


def open_local_runner(options: PipelineOptions) -> FnApiRunner:
    """The runner, which hands its options to its workers."""
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return _LocalRunner(provision_info=ExtendedProvisionInfo(info))


class _LocalRunner(FnApiRunner):
    """Quotes the command of a worker process.

    Beam hands it to a shell as it is; a blank in the path of Python leaves the run waiting for workers for ever.
    """

    def run_via_runner_api(
        self, pipeline_proto: beam_runner_api_pb2.Pipeline, options: PipelineOptions
    ) -> RunnerResult:
        command = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:
                environment.payload = command.encode()
        return super().run_via_runner_api(pipeline_proto, options)
