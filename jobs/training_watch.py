"""What a training leaves for people to look at: a JSON-lines log and grids of reconstructions."""

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

LOG_FILE, SAMPLES_FOLDER = "log.jsonl", "samples"
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


def evenly_spaced(crops: NDArray[Any], count: int) -> list[int]:
    """Rows of `count` crops spread over the set, the same every time."""
    count = min(count, len(crops))
    return [round(position * (len(crops) - 1) / max(1, count - 1)) for position in range(count)]
