"""Word pyramids for a Ray dataset of your own: rows in, rows with tokens out, on whatever cluster Ray is connected to.

Run: .venv/bin/python examples/ray_own_dataset.py [FOLDER] [MODEL]
"""

import sys
from pathlib import Path

import ray

from pipelines.engines.ray_data import tokenize_dataset


def main() -> None:
    """Print the one word of the first layer's token for each picture, and which files are no pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "photos"
    model = sys.argv[2] if len(sys.argv) > 2 else "spae-smol-128"
    if not ray.is_initialized():
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)

    pictures = ray.data.read_binary_files(str(folder), include_paths=True)  # columns: bytes, path
    tokens = tokenize_dataset(pictures, model=model, image_column="bytes", num_layers=2)

    for row in sorted(tokens.take_all(), key=lambda row: row["path"]):
        name = Path(row["path"]).name
        if row["rejected_class"] is not None:
            print(f"{name}: left out, {row['rejected_class']}")
        else:
            print(f"{name}: {row['width_px']}x{row['height_px']}", *row["tokens_0"], *row["tokens_1"])


if __name__ == "__main__":
    main()
