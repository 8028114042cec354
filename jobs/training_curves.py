"""The curves of a training as one PNG, for terminals and notes; the page of the run has them to explore."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

CURVES_FILE = "curves.png"


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a log as three panels: losses, PSNR, perplexity of each layer (logarithmic)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4), layout="constrained")
    for name in sorted({name for row in rows for name in row["losses"]}):
        points = [(row["step"], row["losses"][name]) for row in rows if name in row["losses"]]
        panels[0].plot(*zip(*points, strict=True), label=name, linewidth=1)
    looks = [row for row in rows if "evaluation" in row]
    if looks:
        steps = [row["step"] for row in looks]
        for depth in looks[-1]["evaluation"]["psnr_db"]:
            values = [row["evaluation"]["psnr_db"].get(depth, math.nan) for row in looks]
            panels[1].plot(steps, values, marker=".", label=f"{depth} layers")
        for layer in range(len(looks[-1]["evaluation"]["perplexity"])):
            values = [row["evaluation"]["perplexity"][layer] for row in looks]
            panels[2].plot(steps, values, marker=".", label=f"layer {layer + 1}")
    panels[0].set(title="losses", xlabel="step")
    panels[0].set_yscale("symlog", linthresh=1e-3)
    panels[1].set(title="PSNR of fixed train crops, dB", xlabel="step")
    panels[2].set(title="codebook perplexity", xlabel="step", yscale="log")
    for panel in panels:
        if panel.has_data():
            panel.legend(fontsize=8)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
