"""Line charts as plain numbers for a template: paths, ticks and legends in the units of an SVG view box."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 520.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 8.0, 24.0
_MOST_POINTS = 400

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        name: For the legend.
        path: Of an SVG `path`; values that are absent leave a gap.
        last: Its newest value, as text.
    """

    name: str
    path: str
    last: str


@dataclass(frozen=True, slots=True)
class LineChart:
    """Curves over the steps of a training.

    Attributes:
        title: What is drawn, with its unit.
        lines: The curves.
        x_ticks: Position and text.
        y_ticks: Position and text.
    """

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def line_chart(title: str, curves: Mapping[str, Sequence[Point]], *, logarithmic: bool = False) -> LineChart | None:
    """Lay out curves that share their axes.

    Args:
        title: What is drawn, with its unit.
        curves: Points (step, value) by name, steps rising; None or NaN where there is no value.
        logarithmic: Whether the vertical axis is; values of 0 or less are then left out.

    Returns:
        The chart, or None if no curve has a value.
    """
    kept = {name: [point for point in points if _is_drawn(point[1], logarithmic)] for name, points in curves.items()}
    values = [value for points in kept.values() for _, value in points if value is not None]
    if not values:
        return None
    steps = [step for points in kept.values() for step, _ in points]
    first, last = min(steps), max(steps)
    low, high, y_ticks = _log_axis(values) if logarithmic else _linear_axis(values)

    def x(step: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        share = (math.log10(value) - low if logarithmic else value - low) / (high - low)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share

    return LineChart(
        title=title,
        lines=tuple(
            Line(name, _path(curves[name], x, y, logarithmic), _short(points[-1][1] or 0.0))
            for name, points in kept.items()
            if points
        ),
        x_ticks=tuple((x(step), f"{step:,.0f}") for step in _nice_steps(first, last)),
        y_ticks=tuple((y(value), _short(value)) for value in y_ticks),
    )


def _is_drawn(value: float | None, logarithmic: bool) -> bool:
    return value is not None and math.isfinite(value) and not (logarithmic and value <= 0)


def _path(points: Sequence[Point], x: Callable[[float], float], y: Callable[[float], float], logarithmic: bool) -> str:
    every = max(1, len(points) // _MOST_POINTS)
    thinned = [point for index, point in enumerate(points) if index % every == 0 or index == len(points) - 1]
    parts, pen_is_down = [], False
    for step, value in thinned:
        if value is None or not _is_drawn(value, logarithmic):
            pen_is_down = False
            continue
        parts.append(f"{'L' if pen_is_down else 'M'}{x(step):.1f} {y(value):.1f}")
        pen_is_down = True
    # A single point is a line of no length, which round caps make a dot.
    return " ".join(parts) + ("h0" if len(parts) == 1 else "")


def _linear_axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    low, high = min(values), max(values)
    if low == high:
        low, high = low - max(abs(low), 1e-9) * 0.1, high + max(abs(high), 1e-9) * 0.1
    size = _nice_size((high - low) / 4)
    low, high = math.floor(low / size) * size, math.ceil(high / size) * size
    return low, high, [low + size * index for index in range(round((high - low) / size) + 1)]


def _log_axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    every = math.ceil((high - low) / 5)
    return float(low), float(high), [10.0**power for power in range(low, high + 1, every)]


def _nice_steps(first: float, last: float) -> list[float]:
    if first == last:
        return [first]
    size = _nice_size((last - first) / 4)
    return [size * index for index in range(math.ceil(first / size), math.floor(last / size) + 1)]


def _nice_size(size: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= size * (1 - 1e-9))


def _short(value: float) -> str:
    if value and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
