"""The engine that the flags of a command ask for: checked early, built once the run is planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipelines.engine import Engine
    from pipelines.engines.ray_data import RayOptions
    from pipelines.runs.run_config import RunSettings
    from pipelines.stages.stage import Stage

EngineName = Literal["local", "ray", "beam"]

#: Flags that only some engines know; on another one they are refused, for they would do nothing.
_ENGINES_OF_FLAG = {
    "num_threads": ("local",),
    "num_workers": ("ray", "beam"),
    "min_workers": ("ray",),
    "gpus_per_actor": ("ray",),
    "ray_address": ("ray",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineChoice:
    """Flags of a command that say where the work runs.

    Attributes:
        name: The engine.
        num_threads: Threads of the local engine that read and decode. Default: one for each CPU core.
        num_workers: Most copies of the model. Default: what the engine finds room for.
        min_workers: Copies to begin with. Default: 1.
        gpus_per_actor: Share of a GPU for each copy. Default: 1 where the model runs on GPUs.
        ray_address: Ray cluster to connect to. Default: one on this machine.
        beam_options: Apache Beam's own options, such as `--runner=DataflowRunner`.
    """

    name: EngineName = "local"
    num_threads: int | None = None
    num_workers: int | None = None
    min_workers: int | None = None
    gpus_per_actor: float | None = None
    ray_address: str | None = None
    beam_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse flags that mean nothing.

        Raises:
            UsageError: For a number out of range, or a flag of another engine.
        """
        from pipelines.errors import UsageError

        for field, engines in _ENGINES_OF_FLAG.items():
            if getattr(self, field) is not None and self.name not in engines:
                flag = field.replace("_", "-")
                raise UsageError(
                    f"--{flag}: expected --engine {' or '.join(engines)} with it, got --engine {self.name}. "
                    "Leave it out, or choose that engine."
                )
        if self.beam_options and self.name != "beam":
            raise UsageError(
                f"options after --: expected --engine beam with them, got --engine {self.name}. "
                "Leave them out, or choose that engine."
            )
        for field in ("num_threads", "num_workers", "min_workers"):
            value = getattr(self, field)
            if value is not None and value < 1:
                flag = field.replace("_", "-")
                raise UsageError(f"--{flag}: expected at least 1, got {value}. Give a larger one.")
        if self.gpus_per_actor is not None and not 0.0 < self.gpus_per_actor <= 1.0:
            raise UsageError(
                f"--gpus-per-actor: expected a share in (0, 1], got {self.gpus_per_actor:g}. "
                "One copy of the model uses one GPU at most; give 0.5 for two copies on each."
            )

    def device(self, wanted: Literal["auto", "cpu", "cuda"]) -> str:
        """Where the model will run: on the GPUs of a cluster if one is named, else on those of this machine.

        Raises:
            UsageError: If GPUs are asked for that are not there.
        """
        from pipelines.devices import choose_device, num_cpu_cores
        from pipelines.errors import UsageError

        if self.gpus_per_actor is not None and wanted == "cpu":
            raise UsageError(
                f"--gpus-per-actor: expected a device with GPUs, got {self.gpus_per_actor:g} with --device cpu. "
                "Leave one of the two out."
            )
        if self._is_beam_elsewhere() and wanted != "auto":
            return wanted  # What its workers have cannot be asked from here.
        if self.name == "local" or self.ray_address is None:
            if self.gpus_per_actor is not None and choose_device("auto") == "cpu":
                raise UsageError(
                    f"--gpus-per-actor: expected a GPU that torch can use, got a machine of {num_cpu_cores()} CPU "
                    f"cores without any for the {self.gpus_per_actor:g} asked for each copy. Leave it out, "
                    "or connect to a cluster with GPUs by --ray-address."
                )
            return choose_device(wanted)
        return self._device_of_cluster(wanted)

    def gpu_fraction(self, device: str) -> float:
        """Share of a GPU that each copy of the model reserves."""
        if not device.startswith("cuda"):
            return 0.0
        return 1.0 if self.gpus_per_actor is None else self.gpus_per_actor

    def build(self, *, reading: Stage, decode: Stage, model: str, settings: RunSettings) -> Engine:
        """The engine, with the stages of a run.

        Args:
            reading: Stage that fetches the bytes.
            decode: Stage that decodes them; runs in child processes, so a picture that kills it costs itself alone.
            model: Name or folder of the model.
            settings: Of the run.
        """
        from pipelines.devices import default_batches_per_block, num_cpu_cores
        from pipelines.stages.supervised import Supervised
        from pipelines.stages.tokenize_images import TokenizeImages

        feeding_stages = (reading, Supervised(stage=decode))
        model_stage = TokenizeImages(
            model=model,
            model_sha256=settings.model_sha256,
            num_layers=settings.num_layers,
            batch_size=settings.batch_size,
            batches_per_block=default_batches_per_block(settings.device),
            device=settings.device,
            gpu_fraction=self.gpu_fraction(settings.device),
        )
        if self.name == "ray":
            from pipelines.engines.ray_data import RayEngine

            return RayEngine(feeding_stages=feeding_stages, model_stage=model_stage, options=self._ray_options())
        if self.name == "beam":
            from pipelines.engines.beam import BeamEngine

            return BeamEngine(
                feeding_stages=feeding_stages,
                model_stage=model_stage,
                num_workers=self.num_workers,
                options=self.beam_options,
            )
        from pipelines.engines.local import LocalEngine

        num_threads = self.num_threads or num_cpu_cores()
        return LocalEngine(feeding_stages=feeding_stages, model_stage=model_stage, num_threads=num_threads)

    def _is_beam_elsewhere(self) -> bool:
        """Whether Beam's options name a runner on other machines; refuses options that are not Beam's."""
        if self.name != "beam":
            return False
        from pipelines.engines.beam.options import parse_options, runs_here

        return not runs_here(parse_options(self.beam_options, num_workers=self.num_workers))

    def _ray_options(self) -> RayOptions:
        from pipelines.engines.ray_data import RayOptions

        return RayOptions(address=self.ray_address, min_actors=self.min_workers or 1, max_actors=self.num_workers)

    def _device_of_cluster(self, wanted: Literal["auto", "cpu", "cuda"]) -> str:
        """Ask the cluster before anything is planned, so that a want it cannot meet is told at once."""
        if wanted == "cpu":
            return "cpu"
        from pipelines.engines.ray_data import check_gpus

        must_have = wanted == "cuda" or self.gpus_per_actor is not None
        return "cuda" if check_gpus(self._ray_options(), self.gpu_fraction("cuda"), must_have=must_have) else "cpu"
