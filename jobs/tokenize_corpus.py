"""`spae tokenize INPUT… --out DIR`: a corpus of pictures to a Parquet dataset of word pyramids.

The way of a picture: planned here, read and decoded in threads (`pipelines.stages`), tokenized by the model,
committed with its shard (`pipelines.runs.commit`), counted in the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.console import note, say
from jobs.engine_choice import EngineChoice, EngineName
from jobs.input_listing import draft_plan
from jobs.run_to_the_end import RunToTheEnd, summarize
from jobs.stored_command import complete_from, to_arguments

if TYPE_CHECKING:
    from pipelines.engine import Engine
    from pipelines.runs.claim import ClaimedRun
    from pipelines.runs.describe_run import RunDescription
    from pipelines.runs.plan import DraftPlan, PlanSummary
    from pipelines.stages.decode_images import DecodeImages


@dataclass(frozen=True, kw_only=True)
class TokenizeCorpus:
    """Turn pictures into word pyramids, as a Parquet dataset.

    Run the same command again to resume after an interruption; a finished run is left as it is. Pictures that
    cannot be read go to the quarantine with their reason.
    """

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")] = ()
    """Folders (with subfolders), globs, pictures, WebDataset tars, Parquet files, JSONL or CSV lists; local paths
    or urls such as gs://bucket/photos."""

    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Folder or url of the dataset."""

    model: str = "spae-smol-128"
    """Name of a model that comes along, or a folder written by `spae train`."""

    engine: EngineName = "local"
    """Where the work runs: `local` is this process, `ray` a Ray cluster or Ray on this machine, `beam` Apache Beam with
    its own options after `--`. Does not change the result."""

    num_layers: int | None = None
    """Layers to write, coarse to fine. Default: all of the model."""

    num_shards: int | None = None
    """Files to write. Default: one for every 4,096 pictures, up to 8 for small corpora."""

    batch_size: int | None = None
    """Pictures the model sees at once. Part of the settings: a word can depend on it. Default: 8 on a
    CPU, 32 on a GPU."""

    image_column: str | None = None
    """Column of Parquet files and lists that holds the pictures or their uris. Default: found by name and type."""

    keep_columns: str | None = None
    """Columns of your own to carry into the dataset, such as caption,label: of Parquet files, of lists, of the json
    beside a picture in a tar (also txt, cls, __key__)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` takes a GPU if there is one."""

    num_threads: int | None = None
    """Threads that read and decode. Default: one for each CPU core. Does not change the result."""

    num_workers: int | None = None
    """Ray: most copies of the model; the pool grows while pictures wait. Default: as many as there is room for. Beam:
    processes on this machine. Default: 1."""

    min_workers: int | None = None
    """Ray: copies of the model to begin with. Default: 1."""

    gpus_per_actor: float | None = None
    """Ray: share of a GPU for each copy of the model, such as 0.5. Default: 1 if the model runs on GPUs."""

    ray_address: str | None = None
    """Ray: cluster to connect to, such as auto or HOST:6379. Default: Ray is started on this machine for the run."""

    engine_options: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Words after `--`, for Apache Beam; not written to the run's config, as they may hold credentials."""

    max_quarantined_fraction: float = 0.5
    """Error budget: end with exit code 3 if more than this share of the pictures cannot be read."""

    extend: bool = False
    """Go on with a run that is there for what the inputs have now: new pictures get new shards, changed ones are done
    again in their place, and those that are gone are listed."""

    metrics_file: Path | None = None
    """Text file for Prometheus, rewritten every few seconds, e.g. /var/lib/node_exporter/spae.prom."""

    config: Path | None = None
    """A run's config.json: take from it whatever is not given here."""

    def run(self) -> int:
        """Plan, tokenize what is missing, write the manifest.

        Returns:
            0: the run is complete.

        Raises:
            PipelineError: With the exit code of each case; see `pipelines.errors`.
            ModelError: If the model is unknown or damaged.
        """
        if self.config is not None:
            return complete_from(self, self.config).run()
        self.check()
        # Before the listing, which may take long: GPUs or options that are not there are told at once.
        device = self.engine_choice().device(self.device)
        from tempfile import TemporaryDirectory

        from pipelines.runs.claim import claim_again, claim_run, read_config
        from pipelines.runs.commit import committed_shards
        from pipelines.runs.manifest import is_finished, read_manifest, refuse_damaged_containers
        from pipelines.runs.rounds import read_rounds
        from pipelines.runs.run_layout import CONFIG
        from pipelines.storage import open_storage
        from pipelines.work_steps import open_steps

        storage = open_storage(self.out)
        rounds = read_rounds(storage) if storage.exists(CONFIG) else ()
        follows = any(one.kind == "extend" for one in rounds) or (self.extend and storage.exists(CONFIG))
        with TemporaryDirectory(prefix="spae-plan-") as folder:
            # A listing that is compared with a plan is dealt as that one is.
            num_shards = self.num_shards
            if follows and (self.extend or num_shards is None):
                num_shards = read_config(storage).settings.num_shards
            draft = draft_plan(
                self.inputs,
                Path(folder),
                num_shards=num_shards,
                image_column=self.image_column,
                keep_columns=self.keep_columns,
            )
            described = self.describe(draft.summary, device)
            if not follows:
                claimed = claim_run(storage, described.config, draft, described.codebook)
            else:
                claimed = claim_again(storage, described.config, draft, described.codebook, extend=self.extend)
                if self.extend:
                    self._extend(claimed, draft, described.decode)
        if not open_steps(storage, claimed) and is_finished(storage, read_rounds(storage)):
            num_shards = len(committed_shards(storage))
            say(f"nothing to do: {num_shards} of {num_shards} shards committed in {storage.url()}")
            refuse_damaged_containers(read_manifest(storage))
            return 0
        manifest = self.to_the_end(claimed, described.decode).run()
        summarize(manifest, storage.url())
        refuse_damaged_containers(manifest)
        return 0

    def describe(self, plan: PlanSummary, device: str) -> RunDescription:
        """Resolve the flags to what determines the bytes of a run over this plan, the model being on `device`."""
        from pipelines.devices import default_batch_size
        from pipelines.runs.describe_run import describe_run

        return describe_run(
            plan,
            model=self.model,
            num_layers=self.num_layers,
            batch_size=self.batch_size or default_batch_size(device),
            device=device,
            command=to_arguments(self),
        )

    def _extend(self, claimed: ClaimedRun, draft: DraftPlan, decode: DecodeImages) -> None:
        """Finish what is open, then claim a round for what the inputs have now."""
        from pipelines.runs.extension import plan_extension
        from pipelines.runs.manifest import is_finished
        from pipelines.runs.rounds import read_rounds
        from pipelines.work_steps import open_steps

        storage = claimed.plan.storage
        if open_steps(storage, claimed) or not is_finished(storage, read_rounds(storage)):
            self.to_the_end(claimed, decode).run()
        one = plan_extension(claimed.plan, read_rounds(storage), draft, num_new_shards=self.num_shards)
        if one is not None:
            note(f"extending: {one.num_new} new, {one.num_changed} changed, {one.num_deleted} gone (their tokens stay)")

    def check(self) -> None:
        """Refuse numbers that mean nothing, before anything is read."""
        from pipelines.errors import UsageError

        for name in ("num_layers", "num_shards", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag}: expected at least 1, got {value}. Give a larger one.")
        self.engine_choice()
        if not 0.0 <= self.max_quarantined_fraction <= 1.0:
            raise UsageError(
                "--max-quarantined-fraction: expected a share in [0, 1], "
                f"got {self.max_quarantined_fraction}. Write half as 0.5."
            )

    def to_the_end(self, claimed: ClaimedRun, decode: DecodeImages) -> RunToTheEnd:
        """What brings the run to its end: the engine, the budget, the display."""
        if claimed.committed and claimed.missing:
            note(f"resuming: {len(claimed.committed)} of {claimed.plan.num_shards} shards are committed")
        return RunToTheEnd(
            storage=claimed.plan.storage,
            claimed=claimed,
            engine=self.build_engine(claimed, decode),
            max_quarantined_fraction=self.max_quarantined_fraction,
            metrics_file=self.metrics_file,
        )

    def build_engine(self, claimed: ClaimedRun, decode: DecodeImages) -> Engine:
        """The engine that the flags ask for, with the stages of the run."""
        from pipelines.stages.read_inputs import ReadInputs

        settings = claimed.config.settings
        return self.engine_choice().build(reading=ReadInputs(), decode=decode, model=self.model, settings=settings)

    def engine_choice(self) -> EngineChoice:
        """What the flags say about where the work runs.

        Raises:
            UsageError: If they do not fit together.
        """
        return EngineChoice(
            name=self.engine,
            num_threads=self.num_threads,
            num_workers=self.num_workers,
            min_workers=self.min_workers,
            gpus_per_actor=self.gpus_per_actor,
            ray_address=self.ray_address,
            beam_options=self.engine_options,
        )
