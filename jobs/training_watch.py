"""What a training leaves for people to look at: a JSON-lines log, curves, and a grid of reconstructions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from spae_core.tokenizer import SpaeTokenizer
    from spae_core.trainer import StepReport

LOG_FILE, CURVES_FILE, SAMPLES_FOLDER = "log.jsonl", "curves.png", "samples"
_MOST_PICTURES_SHOWN = 12


class TrainingWatch:
    """Looks at fixed pictures from time to time and writes down what it sees.

    Args:
        folder: Of the run.
        images: (n, 3, S, S) in [0, 1], crops of the train set.
        given: int64 (n, D, H, W) words fixed by the semantic head for them, or None.
        resumed_at: Steps already done; later lines of an older log are dropped.
    """

    def __init__(self, folder: Path, images: Tensor, given: Tensor | None, resumed_at: int) -> None:
        self.folder, self.images, self.given = folder, images, given
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = [row for row in read_log(folder) if row["step"] <= resumed_at]
        (folder / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def record(self, report: StepReport, seconds: float, evaluation: dict[str, Any] | None) -> None:
        """Append one line: losses, learning rate, perplexities, and the evaluation if there was one."""
        row: dict[str, Any] = {
            "step": report.step,
            "seconds": round(seconds, 2),
            "losses": report.losses,
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "perplexity": [None if math.isnan(value) else value for value in report.perplexity],
        }
        if evaluation:
            row["evaluation"] = evaluation
        self.rows.append(row)
        with (self.folder / LOG_FILE).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def evaluate(self, model: SpaeTokenizer, step: int) -> dict[str, Any]:
        """Tokenize the fixed pictures with averaged weights; PSNR by number of layers, perplexity of each layer."""
        import torch

        from spae_core.metrics import LayerCodeStatistics, psnr_db

        pyramid = model.config.pyramid
        prefixes = range(pyramid.first_decodable_layer, pyramid.num_layers + 1)
        statistics = LayerCodeStatistics(pyramid.num_layers, model.codebook.codebook_size)
        psnr: dict[str, list[Tensor]] = {str(depth): [] for depth in prefixes}
        shown: dict[str, list[Tensor]] = {str(depth): [] for depth in prefixes}
        with torch.inference_mode():
            for start in range(0, len(self.images), 32):
                images = self.images[start : start + 32].to(model.device)
                given = None if self.given is None else self.given[start : start + 32].to(model.device)
                indices = model.quantizer.assign(model.encode(images), given=given, exact=False).indices
                layers = model.quantizer.to_layers(indices)
                statistics.update(layers)
                for depth in prefixes:
                    decoded = model.decode(model.quantizer.lookup(layers, depth))
                    psnr[str(depth)].append(psnr_db(decoded, images))
                    shown[str(depth)].append(decoded[: max(0, _MOST_PICTURES_SHOWN - start)].cpu())
        self._draw_grid([self.images[:_MOST_PICTURES_SHOWN], *[torch.cat(rows) for rows in shown.values()]], step)
        return {
            "psnr_db": {depth: torch.cat(values).mean().item() for depth, values in psnr.items()},
            "perplexity": list(statistics.perplexity()),
        }

    def _draw_grid(self, rows: list[Tensor], step: int) -> None:
        from torchvision.utils import save_image

        samples = self.folder / SAMPLES_FOLDER
        samples.mkdir(exist_ok=True)
        import torch

        save_image(torch.cat(rows), samples / f"step-{step:08d}.png", nrow=len(rows[0]), padding=2, pad_value=1.0)

    def draw_curves(self) -> None:
        """Draw losses, PSNR and perplexities of the whole log."""
        draw_curves(self.rows, self.folder / CURVES_FILE)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Lines of a run's log; none if there is no log. A last line that was cut off is dropped."""
    path = folder / LOG_FILE
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


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
    panels[0].set(title="losses", xlabel="step", yscale="symlog")
    panels[0].set_yscale("symlog", linthresh=1e-3)
    panels[1].set(title="PSNR of fixed train crops, dB", xlabel="step")
    panels[2].set(title="codebook perplexity", xlabel="step", yscale="log")
    for panel in panels:
        if panel.has_data():
            panel.legend(fontsize=8)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def evenly_spaced(crops: NDArray[Any], count: int) -> list[int]:
    """Rows of `count` crops spread over the set, the same every time."""
    count = min(count, len(crops))
    return [round(position * (len(crops) - 1) / max(1, count - 1)) for position in range(count)]
