"""The Beam engine: the stages as an Apache Beam pipeline, on this machine, Dataflow or Flink.

`BeamEngine` tokenizes a planned run like the other engines do; `TokenizeImages` is the same work as a transform
for pipelines of your own. Importing this package imports Apache Beam.
"""

from pipelines.engines.beam.engine import BeamEngine
from pipelines.engines.beam.tokenize_transform import TokenizeImages

__all__ = ["BeamEngine", "TokenizeImages"]
