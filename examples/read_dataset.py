"""A token dataset read with DuckDB and none of this project's code: what each picture says, and which agree.

Run after `make demo`: .venv/bin/python examples/read_dataset.py [RUN]
"""

import sys
from pathlib import Path

import duckdb

WORDS_OF_EACH_PICTURE = """
WITH cells AS (
    SELECT uri, unnest(tokens_1) AS code_index, generate_subscripts(tokens_1, 1) AS position
    FROM read_parquet($data)
)
SELECT parse_filename(uri) AS picture, list(text ORDER BY position) AS words
FROM cells JOIN read_parquet($codebook) USING (code_index)
GROUP BY uri ORDER BY uri
"""

SHARED_WORDS = """
WITH cells AS (SELECT DISTINCT uri, unnest(tokens_2) AS code_index FROM read_parquet($data))
SELECT text, count(*) AS pictures, list(parse_filename(uri) ORDER BY uri) AS where_found
FROM cells JOIN read_parquet($codebook) USING (code_index)
GROUP BY text HAVING count(*) > 1 ORDER BY pictures DESC, text LIMIT 10
"""


def main() -> None:
    """Print both answers."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/tokens")
    files = {"data": str(run / "data" / "*.parquet"), "codebook": str(run / "codebook.parquet")}
    for question, query in (
        ("layer 2 of each picture", WORDS_OF_EACH_PICTURE),
        ("words of layer 3 in several", SHARED_WORDS),
    ):
        print(f"\n{question}")
        for row in duckdb.execute(query, files).fetchall():
            print("  ", *row)


if __name__ == "__main__":
    main()
