"""The page of a report as people use it: by pointer, touch and keyboard, in light and dark, on a phone."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from report_runs import GRIDS, HOSTILE_NAME, tokenize
from report_visit import CONTRASTS, Visit

from pipelines.evaluation.report import build_report

pytestmark = pytest.mark.browser
NAMES = (HOSTILE_NAME, "a.png", "b.png")
FIRST_LAYER = 3  # counted from 0: the first that has a word for every cell


def test_the_page_complains_of_nothing_and_asks_for_nothing(visit: Visit) -> None:
    for number in range(1, len(NAMES) + 1):
        visit.point_at(number, 0.3, 0.6)
    visit.page.locator("#theme").click()
    visit.plate(1).locator("[tabindex='0']").focus()
    for key in ("[", "ArrowRight", "PageDown", "9", "Home", "Control+End", "x"):
        visit.page.keyboard.press(key)
    visit.page.emulate_media(media="print")
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert visit.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in visit.requests)
    assert sum(url.startswith("file:") for url in visit.requests) == 1


def test_no_word_or_name_becomes_markup(visit: Visit) -> None:
    visit.point_at(1, 0.1, 0.1)
    for number in range(1, len(NAMES) + 1):
        visit.plate(number).scroll_into_view_if_needed()
    visit.page.wait_for_function("document.querySelectorAll('.fine .w').length === 3 * 64")
    assert visit.page.title() == "run: word pyramids"
    assert visit.page.locator("img:not([src^='data:'])").count() == 0
    assert visit.page.locator(".w *, .word *").count() == 0
    assert HOSTILE_NAME in visit.page.locator("h3").all_inner_texts()


@pytest.mark.parametrize("picture", [0, 1, 2])
def test_pointing_at_a_picture_shows_the_words_of_every_layer_there(visit: Visit, picture: int) -> None:
    for u, v in ((0.05, 0.05), (0.55, 0.3), (0.95, 0.99)):
        visit.point_at(2, u, v, picture)
        assert visit.ladder(2) == visit.words_at(2, u, v)
    assert "Row 8 of 8, column 8 of 8" in visit.plate(2).locator(".where").inner_text()


def test_pointing_at_a_picture_marks_the_cell_of_every_layer_on_all_three_and_its_words(visit: Visit) -> None:
    visit.point_at(1, 0.8, 0.3)
    visit.page.wait_for_function("document.querySelector('#sample-1 .fine .w')")
    for frame in visit.plate(1).locator(".frame").all():
        box = frame.bounding_box()
        marks = frame.locator(".ring, .spot").all()
        assert len(marks) == len(GRIDS)
        assert box is not None
        for (rows, columns), mark in zip(GRIDS, marks, strict=True):
            cell = mark.bounding_box()
            assert cell is not None
            assert cell["x"] - box["x"] == pytest.approx(int(0.8 * columns) / columns * box["width"], abs=1)
            assert cell["y"] - box["y"] == pytest.approx(int(0.3 * rows) / rows * box["height"], abs=1)
            assert cell["width"] == pytest.approx(box["width"] / columns, abs=1)
            assert mark.evaluate("mark => Number(getComputedStyle(mark).opacity)") > 0.5
    marked = visit.plate(1).locator(".w.at").all_inner_texts()
    words = visit.words_at(1, 0.8, 0.3)
    assert marked == words[:4]  # three layers of large words, and the fine grid with the fourth


def test_pointing_at_a_word_lights_up_the_region_it_stands_for(visit: Visit) -> None:
    word = visit.plate(1).locator(".w[data-layer='2'][data-row='3'][data-column='1']")
    word.hover()
    assert "now" in (word.get_attribute("class") or "")
    spot, frame = (visit.plate(1).locator(name).first.bounding_box() for name in (".frame .spot", ".frame"))
    assert spot is not None
    assert frame is not None
    assert (spot["x"] - frame["x"]) / frame["width"] == pytest.approx(0.25, abs=0.01)
    assert (spot["y"] - frame["y"]) / frame["height"] == pytest.approx(0.75, abs=0.01)
    assert spot["width"] / frame["width"] == pytest.approx(0.25, abs=0.01)
    visit.page.mouse.move(0, 0)
    assert visit.ladder(1) == visit.words_at(1, 0.5, 0.5)


def test_a_click_keeps_the_place_when_the_pointer_leaves(visit: Visit) -> None:
    visit.point_at(1, 0.2, 0.7)
    visit.page.mouse.down()
    visit.page.mouse.up()
    visit.page.mouse.move(0, 0)
    assert visit.ladder(1) == visit.words_at(1, 0.2, 0.7)
    assert visit.focused_cell() == (1, FIRST_LAYER + 1, 6, 2)


def test_tab_goes_through_the_head_of_the_page_and_then_from_picture_to_picture(visit: Visit) -> None:
    stops = []
    for _ in range(2 + len(NAMES)):
        visit.page.keyboard.press("Tab")
        stops.append(visit.page.evaluate("document.activeElement.id || document.activeElement.getAttribute('href')"))
    assert stops == ["#sample-1", "theme", "#sample-1", "#sample-2", "#sample-3"]
    for number in (1, 2, 3):
        visit.page.keyboard.press("Tab")
        assert visit.focused_cell()[0] == number
        visit.page.keyboard.press("ArrowLeft")
    visit.page.keyboard.press("Shift+Tab")
    # The cell where the picture was left, not its first one.
    assert visit.focused_cell() == (2, 4, 5, 4)


def test_the_skip_link_leads_to_the_first_picture(visit: Visit) -> None:
    visit.page.keyboard.press("Tab")
    assert visit.page.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]
    visit.page.keyboard.press("Enter")
    visit.page.keyboard.press("Tab")
    assert visit.focused_cell()[0] == 1


def test_arrow_keys_walk_over_the_cells_and_brackets_through_the_layers(visit: Visit) -> None:
    visit.plate(2).locator("[tabindex='0']").focus()
    steps = [
        ("ArrowLeft", (4, 5, 4)),
        ("ArrowUp", (4, 4, 4)),
        ("[", (3, 2, 2)),
        ("ArrowRight", (3, 2, 3)),
        ("PageUp", (2, 1, 2)),
        ("ArrowDown", (2, 2, 2)),
        ("ArrowDown", (2, 2, 2)),  # the edge holds
        ("]", (3, 4, 4)),
        ("PageDown", (4, 7, 7)),
        ("Home", (4, 7, 1)),
        ("Control+Home", (4, 1, 1)),
        ("End", (4, 1, 8)),
        ("ArrowRight", (4, 1, 8)),
        ("5", (5, 1, 8)),
        ("]", (5, 1, 8)),
        ("1", (1, 1, 1)),
        ("[", (1, 1, 1)),
    ]
    for key, (layer, row, column) in steps:
        visit.page.keyboard.press(key)
        assert visit.focused_cell() == (2, layer, row, column), key
        rows, columns = GRIDS[layer - 1]
        word = visit.words_at(2, (column - 0.5) / columns, (row - 0.5) / rows)[layer - 1]
        assert visit.ladder(2)[layer - 1] == word
        live = visit.page.locator("#live").text_content() or ""
        assert live.startswith(f"Layer {layer}, row {row}, column {column}: {word}. Layer by layer: 1 ")


def test_layers_can_be_chosen_by_pointer(visit: Visit) -> None:
    visit.plate(1).locator(".ladder button").nth(1).click()
    assert visit.focused_cell()[:2] == (1, 2)
    visit.plate(1).locator(".fine button", has_text="5").click()
    assert visit.focused_cell()[:2] == (1, 5)
    assert visit.plate(1).locator(".fine .which").inner_text() == "Layer 5: 64 words, 8 × 8"
    words = [visit.data["words"][index][0] for index in visit.data["samples"][0]["layers"][4]]
    assert visit.plate(1).locator(".fine .w").all_text_contents() == words


def test_screen_readers_find_named_pictures_grids_and_a_live_region(visit: Visit) -> None:
    for name in NAMES:
        visit.page.get_by_role("article", name=name, exact=True).wait_for()
        visit.page.get_by_role("img", name=f"Original: {name}", exact=True).wait_for()
        visit.page.get_by_role("grid", name=f"{name}: words of layer 4 of 5, 8 by 8", exact=True).wait_for()
    grid = visit.page.get_by_role("grid").first
    assert grid.get_by_role("row").count() == 8
    assert grid.get_by_role("gridcell").count() == 64
    assert visit.page.locator("#live").get_attribute("aria-live") == "polite"
    assert visit.page.locator(f"#{grid.get_attribute('aria-describedby')}").count() == 1


def test_the_focus_can_be_seen(visit: Visit) -> None:
    visit.page.keyboard.press("Tab")
    for _ in range(5):
        visit.page.keyboard.press("Tab")
        style = visit.page.evaluate(
            "(({outlineStyle, outlineWidth}) => [outlineStyle, parseFloat(outlineWidth)])"
            "(getComputedStyle(document.activeElement))"
        )
        assert style[0] == "solid"
        assert style[1] >= 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(browser: Browser, path: Path, scheme: str) -> None:
    visit = Visit(browser, path, color_scheme=scheme)
    for number in range(1, len(NAMES) + 1):
        visit.plate(number).scroll_into_view_if_needed()
    visit.page.wait_for_function("document.querySelectorAll('.fine .w').length === 3 * 64")
    visit.point_at(1, 0.4, 0.4)
    contrasts = visit.page.evaluate(CONTRASTS)
    visit.context.close()
    assert len(contrasts) > 200
    worst = min(contrasts)
    assert worst[0] >= 4.5, worst


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tinted_words_keep_their_contrast_on_any_colour(browser: Browser, path: Path, scheme: str) -> None:
    visit = Visit(browser, path, color_scheme=scheme)
    visit.plate(1).scroll_into_view_if_needed()
    visit.page.wait_for_function("document.querySelectorAll('#sample-1 .fine .w').length === 64")
    worst = visit.page.evaluate(
        """(contrasts) => {
          const words = [...document.querySelectorAll("#sample-1 .fine .w")];
          const corner = (bits) => "#" + [4, 2, 1].map((bit) => (bits & bit ? "ff" : "00")).join("");
          words.forEach((word, index) => word.style.setProperty("--tint", corner(index % 8)));
          return contrasts.filter(([, where]) => where.startsWith("w "));
        }""".replace("contrasts.filter", f"({CONTRASTS})().filter"),
        None,
    )
    visit.context.close()
    assert min(worst)[0] >= 4.5, min(worst)


def test_dark_and_light_follow_the_system_until_the_reader_chooses(browser: Browser, path: Path) -> None:
    visit = Visit(browser, path, color_scheme="dark")
    lightness = "parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    assert visit.page.evaluate(lightness) < 60
    button = visit.page.locator("#theme")
    button.click()
    assert button.inner_text() == "Theme: light"
    assert visit.page.evaluate(lightness) > 200
    visit.page.reload()
    assert visit.page.evaluate(lightness) > 200
    button.click()
    visit.page.emulate_media(color_scheme="light")
    assert visit.page.evaluate(lightness) < 60
    button.click()
    assert button.inner_text() == "Theme: auto"
    assert visit.page.evaluate(lightness) > 200
    visit.context.close()


@pytest.mark.parametrize("width", [320, 390, 800])
def test_a_narrow_screen_never_scrolls_sideways(browser: Browser, path: Path, width: int) -> None:
    visit = Visit(browser, path, viewport={"width": width, "height": 700})
    for number in range(1, len(NAMES) + 1):
        visit.plate(number).scroll_into_view_if_needed()
    visit.page.wait_for_function("document.querySelectorAll('.fine .w').length === 3 * 64")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    first = visit.plate(1).locator(".frame").first.bounding_box()
    visit.context.close()
    assert first is not None
    if width < 600:
        assert first["width"] > 0.85 * width  # large enough for a finger


def test_a_finger_chooses_a_place_and_it_stays(browser: Browser, path: Path) -> None:
    visit = Visit(browser, path, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    frame = visit.plate(1).locator(".frame").first
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box is not None
    visit.page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    assert visit.ladder(1) == visit.words_at(1, 0.9, 0.2)
    assert "live" in (visit.plate(1).get_attribute("class") or "")
    assert visit.complaints == []
    visit.context.close()


def test_without_a_wish_for_less_motion_things_fade_and_with_it_nothing_moves(browser: Browser, path: Path) -> None:
    durations = []
    for wish in ("no-preference", "reduce"):
        visit = Visit(browser, path, reduced_motion=wish)
        durations.append(
            visit.page.evaluate(
                "[getComputedStyle(document.querySelector('.ring, .spot')).transitionDuration,"
                " getComputedStyle(document.documentElement).scrollBehavior]"
            )
        )
        visit.context.close()
    assert durations == [["0.15s", "smooth"], ["0s", "auto"]]


def test_without_scripts_the_pictures_and_the_coarse_words_are_there(browser: Browser, path: Path) -> None:
    visit = Visit(browser, path, java_script_enabled=False)
    assert visit.page.locator(".frame img").count() == 3 * len(NAMES)
    assert visit.plate(1).locator(".panel .w").count() == 1 + 4 + 16
    assert visit.page.locator("#theme").is_hidden()
    assert "with JavaScript" in visit.plate(1).locator(".which").inner_text()
    visit.context.close()


def test_a_run_without_pictures_and_one_without_originals_open_without_complaint(
    browser: Browser, run_folder: Path, tmp_path: Path
) -> None:
    pages = {"none.html": build_report(str(run_folder), num_samples=0)}
    shutil.copytree(run_folder.parent / "photos", tmp_path / "photos")
    moved = tokenize(tmp_path / "photos", tmp_path / "run", run_folder.parent / "model")
    shutil.rmtree(tmp_path / "photos")
    pages["gone.html"] = build_report(str(moved))
    for name, page in pages.items():
        (tmp_path / name).write_text(page, encoding="utf-8")
        visit = Visit(browser, tmp_path / name)
        if name == "gone.html":
            visit.point_at(1, 0.3, 0.3)
            assert visit.ladder(1) == visit.words_at(1, 0.3, 0.3)
            assert "no longer there" in visit.plate(1).locator(".frame").first.inner_text()
        assert visit.complaints == []
        visit.context.close()
