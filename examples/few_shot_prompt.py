"""A few-shot classification prompt for a language model, its pictures written as words (arXiv 2306.17842).

The model behind the prompt needs no training: it reads five words a picture, and sees from one picture of
each class which words go with which name.

Run after `make demo`: .venv/bin/python examples/few_shot_prompt.py [RUN]
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

EXAMPLES = (("chelsea", "animal"), ("rocket", "machine"))
QUESTION = "camera"


def words_by_picture(run: Path) -> dict[str, list[str]]:
    """The five words of layers 1 and 2 of each picture, by the name of its file without suffix."""
    words = pq.read_table(run / "codebook.parquet", columns=["text"])["text"].to_pylist()
    rows = pq.read_table(run / "data", columns=["uri", "tokens_0", "tokens_1"]).to_pylist()
    return {Path(row["uri"]).stem: [words[i] for i in row["tokens_0"] + row["tokens_1"]] for row in rows}


def main() -> None:
    """Print the prompt."""
    pictures = words_by_picture(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/tokens"))
    names = " or ".join(f'"{name}"' for _, name in EXAMPLES)
    print(f"For each of the following input output pairs, output is one of {names}.\n")
    for picture, name in EXAMPLES:
        print(f"Input: {' '.join(pictures[picture])}\nOutput: {name}\n")
    print(f"Input: {' '.join(pictures[QUESTION])}\nOutput:")


if __name__ == "__main__":
    main()
