"""A page of a report, open in Chromium, with everything it says and asks for."""

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page
from report_runs import GRIDS

# Contrast of every visible text against what is painted behind it, as WCAG 2 computes it.
CONTRASTS = """
() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([red, green, blue]) => {
    const linear = [red, green, blue].map((byte) => {
      const value = byte / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!hasText || element.closest("script, style, .hidden, .skip")) continue;
    if (!element.getClientRects().length) continue;
    let behind = element;
    while (behind && rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const text = getComputedStyle(element).color;
    const ground = getComputedStyle(behind ?? document.body).backgroundColor;
    const [light, dark] = [luminance(rgb(text)), luminance(rgb(ground))].sort((a, b) => b - a);
    const where = `${element.className || element.tagName} ${text} on ${ground}`;
    found.push([(light + 0.05) / (dark + 0.05), where]);
  }
  return found;
}
"""


class Visit:
    """An open page with everything it said and asked for."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        settings = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        self.context = browser.new_context(**settings)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            self.data = json.loads(self.page.locator("#pyramids").text_content() or "")

    def plate(self, number: int) -> Locator:
        return self.page.locator(f"#sample-{number}")

    def ladder(self, number: int) -> list[str]:
        return self.plate(number).locator(".ladder .word").all_inner_texts()

    def words_at(self, number: int, u: float, v: float) -> list[str]:
        """Words of every layer at a place in [0, 1), from the data."""
        layers = self.data["samples"][number - 1]["layers"]
        return [
            self.data["words"][layers[layer][int(v * rows) * columns + int(u * columns)]][0]
            for layer, (rows, columns) in enumerate(GRIDS)
        ]

    def focused_cell(self) -> tuple[int, int, int, int]:
        """(sample, layer, row, column) of the cell that has the focus, all counted from 1."""
        label, sample = self.page.evaluate(
            "((cell) => [cell.getAttribute('aria-label'), cell.closest('article').id])(document.activeElement)"
        )
        numbers = re.search(r", layer (\d+), row (\d+), column (\d+)$", label)
        assert numbers is not None, label
        layer, row, column = map(int, numbers.groups())
        return int(sample.removeprefix("sample-")), layer, row, column

    def point_at(self, number: int, u: float, v: float, picture: int = 0) -> None:
        frame = self.plate(number).locator(".frame").nth(picture)
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"])
