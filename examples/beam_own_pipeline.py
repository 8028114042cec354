"""Pictures to words as one step of your own Apache Beam pipeline.

    python examples/beam_own_pipeline.py "examples/photos/*" words

writes Parquet files `words-*.parquet` with the words of the first two layers of each picture, and prints which files
are no pictures. Further options are Beam's own, e.g. `--runner=DataflowRunner`.
"""

import argparse

import apache_beam as beam
import pyarrow as pa
from apache_beam.io import fileio
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.engines.beam import TokenizeImages

SCHEMA = pa.schema([("key", pa.string()), ("tokens_0", pa.list_(pa.int32())), ("tokens_1", pa.list_(pa.int32()))])


def main() -> None:
    """Build the pipeline and run it."""
    parser = argparse.ArgumentParser(description="Pictures to words with Apache Beam.")
    parser.add_argument("pattern", help="picture files, e.g. gs://bucket/photos/*")
    parser.add_argument("out", help="prefix of the Parquet files")
    parser.add_argument("--model", default="spae-smol-128", help="name or folder of a model")
    arguments, options = parser.parse_known_args()

    # `--runner` in the options wins; this is Beam's Python runner, which needs no download.
    options = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner", *options]
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        tokens, rejected = (
            pipeline
            | fileio.MatchFiles(arguments.pattern)
            | fileio.ReadMatches()
            | "Read" >> beam.Map(lambda file: (file.metadata.path, file.read()))
            | TokenizeImages(arguments.model, num_layers=2).with_exception_handling()
        )
        _ = (
            tokens
            | "Columns" >> beam.Map(lambda row: {name: row[name] for name in SCHEMA.names})
            | beam.io.WriteToParquet(f"{arguments.out}/words", SCHEMA, file_name_suffix=".parquet")
        )
        _ = rejected | "Tell" >> beam.Map(lambda row: print(f"{row['key']}: {row['error_class']}"))


if __name__ == "__main__":
    main()
