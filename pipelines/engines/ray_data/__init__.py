"""Ray: the stages on a cluster, streamed by Ray Data; for runs of ours and for datasets of others."""

from pipelines.engines.ray_data.dataset import tokenize_dataset
from pipelines.engines.ray_data.engine import RayEngine
from pipelines.engines.ray_data.options import RayOptions
from pipelines.engines.ray_data.session import check_gpus

__all__ = ["RayEngine", "RayOptions", "check_gpus", "tokenize_dataset"]
