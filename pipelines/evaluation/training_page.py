"""The page of a training: curves, reconstructions over time and settings in one HTML file without a script.

It reads what the training left in its folder: `log.jsonl` lines, `config.json` and the picture grids in `samples/`.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from pipelines.evaluation.line_chart import HEIGHT, WIDTH, LineChart, Point, line_chart

PAGE_FILE = "training.html"
TEMPLATES = Path(__file__).parent / "templates"
_PADDING_PX = 2
_MOST_STRIPS, _MOST_PICTURES = 8, 8
#: What each term of the loss is, for people.
_TERMS: dict[str, str] = {
    "reconstruction": "squared error of pixels",
    "perceptual": "LPIPS",
    "commitment": "commitment",
    "codebook": "codebook",
    "entropy": "entropy of the codes, nats",
    "semantic": "semantic guidance, nats",
    "adversarial": "GAN, generator",
    "discriminator": "GAN, discriminator",
    "r1": "R1",
    "lecam": "LeCam",
}


@dataclass(frozen=True, slots=True)
class Strip:
    """The same pictures at one moment: a data URL, and what to say about it."""

    label: str
    picture: str
    alt: str


def write_training_page(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the page of a run.

    Args:
        folder: Of the run.
        rows: Its log, oldest first.

    Returns:
        The file, replaced as a whole.
    """
    path = folder / PAGE_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(render_training_page(folder, rows), encoding="utf-8")
    partial.replace(path)
    return path


def render_training_page(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML; see `write_training_page`."""
    description = json.loads((folder / "config.json").read_text()) if (folder / "config.json").is_file() else {}
    recipe = description.get("recipe", {})
    looks = [row for row in rows if "evaluation" in row]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("training.html.j2").render(
        name=folder.resolve().name,
        preset=description.get("config", {}).get("name", "a model"),
        step=rows[-1]["step"] if rows else 0,
        num_steps=recipe.get("num_steps"),
        facts=_facts(rows, looks, description),
        charts=quality_charts(looks) + perplexity_charts(rows, looks),
        loss_charts=loss_charts(rows),
        strips=strips(folder / "samples", description.get("config", {})),
        settings=_flat(recipe),
        model_settings=_flat(description.get("config", {})),
        versions=description.get("versions", {}),
        chart_size=(WIDTH, HEIGHT),
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        chart_css=Markup((TEMPLATES / "training.css").read_text(encoding="utf-8")),
    )


def quality_charts(looks: Sequence[Mapping[str, Any]]) -> list[LineChart]:
    """PSNR of the fixed crops, a curve for each number of layers."""
    depths = list(looks[-1]["evaluation"]["psnr_db"]) if looks else []
    curves = {
        f"{depth} layers": [(row["step"], row["evaluation"]["psnr_db"].get(depth)) for row in looks] for depth in depths
    }
    return _present([line_chart("PSNR of fixed train crops, dB", curves)])


def perplexity_charts(rows: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Any]]) -> list[LineChart]:
    """Words in use, a curve for each layer: in the steps between two log lines, and over the fixed crops."""
    in_steps = [(row["step"], row["perplexity"]) for row in rows if row.get("perplexity")]
    in_looks = [(row["step"], row["evaluation"]["perplexity"]) for row in looks]
    return _present(
        [
            line_chart(title, _by_layer(points), logarithmic=True)
            for title, points in (
                ("codebook perplexity over the fixed crops", in_looks),
                ("codebook perplexity in the steps since the last line", in_steps),
            )
        ]
    )


def loss_charts(rows: Sequence[Mapping[str, Any]]) -> list[LineChart]:
    """A small chart for each term of the loss, before its weight; then learning rate and gradient norm."""
    names: set[str] = {name for row in rows for name in row["losses"]}
    ordered = [name for name in _TERMS if name in names] + sorted(names - _TERMS.keys())
    charts = []
    for name in ordered:
        points = [(row["step"], row["losses"].get(name)) for row in rows]
        if any(value for _, value in points):  # a term that is 0 throughout takes no part
            charts.append(_chart_of_one(_TERMS.get(name, name), points))
    for name in ("learning_rate", "gradient_norm"):
        charts.append(_chart_of_one(name.replace("_", " "), [(row["step"], row[name]) for row in rows]))
    return _present(charts)


def _chart_of_one(title: str, points: Sequence[Point]) -> LineChart | None:
    """One curve; on a logarithmic axis where it spans so much that its end would be a flat line."""
    values = [value for _, value in points if value is not None and math.isfinite(value)]
    spans_much = bool(values) and min(values) > 0 and max(values) > 30 * min(values)
    return line_chart(title, {title: points}, logarithmic=spans_much)


def strips(samples: Path, config: Mapping[str, Any]) -> list[Strip]:
    """The same crops over time: originals first, then reconstructions from all layers, evenly spaced in time."""
    grids = sorted(samples.glob("step-*.png"))
    if not grids:
        return []
    last = len(grids) - 1
    count = min(_MOST_STRIPS, len(grids))
    chosen = [grids[round(index * last / max(1, count - 1))] for index in range(count)]
    side = config.get("image_size_px", 128)
    shown = [Strip("original", _row_of(chosen[0], 0, side), "the original crops")]
    for path in chosen:
        match = re.search(r"\d+", path.stem)
        step = f"step {int(match[0]) if match else 0:,}"
        shown.append(Strip(step, _row_of(path, -1, side), f"the same crops painted from their words after {step}"))
    return shown


def _row_of(grid: Path, row: int, side: int) -> str:
    """One row of a picture grid as a data URL; negative rows count from the bottom."""
    image = Image.open(grid)
    pitch = side + _PADDING_PX
    num_rows = (image.height - _PADDING_PX) // pitch
    top = _PADDING_PX + pitch * (row % num_rows)
    width = min(image.width - 2 * _PADDING_PX, _MOST_PICTURES * pitch - _PADDING_PX)
    buffer = io.BytesIO()
    strip = image.crop((_PADDING_PX, top, _PADDING_PX + width, top + side)).convert("RGB")
    strip.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _facts(
    rows: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Any]], description: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Name, value and remark of the numbers at the top."""
    if not rows:
        return []
    last = rows[-1]
    hours, minutes = divmod(round(last["seconds"] / 60), 60)
    facts = [("steps", f"{last['step']:,}", f"{last['step'] / max(last['seconds'], 1e-9):.2f} a second")]
    facts.append(("time", f"{hours} h {minutes} min" if hours else f"{minutes} min", ""))
    if "num_crops" in description:
        batch = description["recipe"]["batch_size"]
        epochs = last["step"] * batch / description["num_crops"]
        facts.append(("crops", f"{description['num_crops']:,}", f"each seen {epochs:.1f} times"))
    if looks:
        evaluation = looks[-1]["evaluation"]
        depth, psnr = list(evaluation["psnr_db"].items())[-1]
        facts.append(("PSNR", f"{psnr:.2f} dB", f"{depth} layers, train crops"))
        facts.append(("words in use", f"{evaluation['perplexity'][-1]:,.0f}", "perplexity of the last layer"))
    return facts


def _by_layer(points: Sequence[tuple[int, Sequence[float | None]]]) -> dict[str, list[tuple[float, float | None]]]:
    num_layers = max((len(values) for _, values in points), default=0)
    return {f"layer {layer + 1}": [(step, values[layer]) for step, values in points] for layer in range(num_layers)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines of name and value."""
    lines: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", json.dumps(value) if not isinstance(value, str) else value))
    return lines


def _present(charts: Sequence[LineChart | None]) -> list[LineChart]:
    return [chart for chart in charts if chart is not None]
