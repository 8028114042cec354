"""What a training is in the middle of: collected for a checkpoint, put back from one, and what the two must share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from spae_core.adversary import Adversary
from spae_core.metrics import LayerCodeStatistics
from spae_core.model_files import config_to_json
from spae_core.replicas import Replicas
from spae_core.tokenizer import SpaeTokenizer
from spae_core.training_batches import TrainingData
from spae_core.training_config import TrainingConfig

#: Never trained, and there before the training is.
_FROZEN = "ranked_words."

#: What one looks at may change, and a run may be lengthened or shortened: the learning rate then follows the new
#: schedule from the resumed step on.
_CHANGEABLE = ("num_steps", "log_every", "evaluate_every", "checkpoint_every", "recompute_activations")


def run_identity(model: SpaeTokenizer, recipe: TrainingConfig, data: TrainingData) -> dict[str, Any]:
    """What a checkpoint must share with a run that goes on from it; plain values."""
    settings = asdict(recipe)
    for name in _CHANGEABLE:
        del settings[name]
    return {
        "config": config_to_json(model.config),
        "codebook_sha256": model.codebook_sha256,
        "recipe": settings,
        "num_crops": len(data.crops),
        "crops_sha256": data.crops_sha256,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """The parts of a training that change from step to step.

    Attributes:
        model: What is trained.
        averaging: The same with averaged weights.
        optimizer: Of the model.
        adversary: The discriminator with its own optimizer; None without one.
        statistics: How often each code was used since the last report, by this process.
        replicas: The processes that share each batch.
    """

    model: SpaeTokenizer
    averaging: AveragedModel
    optimizer: Optimizer
    adversary: Adversary | None
    statistics: LayerCodeStatistics
    replicas: Replicas

    def collect(self) -> dict[str, Any]:
        """State dicts of all parts. All replicas must call it, since the counts of all are added up."""
        return {
            "model": _learned(self.model),
            "averaged": _learned(self.averaging.module),
            "num_averaged": self.averaging.n_averaged,
            "optimizer": self.optimizer.state_dict(),
            "adversary": self.adversary.state_dict() if self.adversary else {},
            "code_counts": self.replicas.total(self.statistics.counts).clone(),
        }

    def put_back(self, state: dict[str, Any]) -> None:
        """Change all parts to what `collect` once gave."""
        self.model.load_state_dict(state["model"], strict=False)
        self.averaging.module.load_state_dict(state["averaged"], strict=False)
        self.averaging.n_averaged.copy_(state["num_averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.replicas.rank == 0:  # the counts of all, which would otherwise be added up again
            self.statistics.counts.copy_(state["code_counts"])
        if self.adversary:
            self.adversary.load_state_dict(state["adversary"])


def _learned(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if not name.startswith(_FROZEN)}
