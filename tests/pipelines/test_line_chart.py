"""Curves end up where their numbers say, on axes with round numbers."""

import math
import re

import pytest

from pipelines.evaluation.line_chart import HEIGHT, WIDTH, line_chart


def points_of(path: str) -> list[tuple[str, float, float]]:
    return [(pen, float(x), float(y)) for pen, x, y in re.findall(r"([ML])(\S+) (\S+?)(?=[MLh ]|$)", path)]


def test_a_line_goes_from_corner_to_corner_of_round_axes():
    chart = line_chart("PSNR, dB", {"5 layers": [(0, 20.0), (500, 21.0), (1000, 22.0)]})
    ((_, x0, y0), (_, x1, y1), (_, x2, y2)) = points_of(chart.lines[0].path)
    assert 0 < x0 < x1 < x2 < WIDTH
    assert x1 == pytest.approx((x0 + x2) / 2)
    assert HEIGHT > y0 > y1 > y2 > 0
    assert [text for _, text in chart.y_ticks] == ["20", "20.5", "21", "21.5", "22"]
    assert [text for _, text in chart.x_ticks] == ["0", "500", "1,000"]
    assert dict((text, y) for y, text in chart.y_ticks)["21"] == pytest.approx(y1, abs=0.1)
    assert chart.lines[0].last == "22"


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors():
    chart = line_chart("perplexity", {"layer 1": [(1, 1.0), (2, 10.0), (3, 100.0), (4, 0.0)]}, logarithmic=True)
    heights = [y for _, _, y in points_of(chart.lines[0].path)]
    assert len(heights) == 3
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)
    assert [text for _, text in chart.y_ticks] == ["1", "10", "100"]


def test_values_that_are_absent_leave_a_gap():
    chart = line_chart("loss", {"a": [(1, 1.0), (2, 2.0), (3, None), (4, math.nan), (5, 1.5), (6, 1.0)]})
    assert [pen for pen, _, _ in points_of(chart.lines[0].path)] == ["M", "L", "M", "L"]


def test_a_curve_of_one_point_is_a_dot_and_one_of_none_no_chart():
    assert line_chart("loss", {"a": [(7, 3.0)]}).lines[0].path.endswith("h0")
    assert line_chart("loss", {"a": [(7, None)], "b": []}) is None
    assert [line.name for line in line_chart("loss", {"a": [], "b": [(1, 2.0)]}).lines] == ["b"]


def test_a_long_curve_is_thinned_and_keeps_its_last_point():
    chart = line_chart("loss", {"a": [(step, float(step % 7)) for step in range(10_001)]})
    points = points_of(chart.lines[0].path)
    assert 300 < len(points) < 450
    assert points[-1][1] == pytest.approx(WIDTH - 8)
