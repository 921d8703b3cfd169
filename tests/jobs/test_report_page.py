"""The report in a real Chromium: it draws itself, filters, searches, compares, marks, exports, and fits a phone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cleanplate.jobs.cli.app import main
from cleanplate.pipeline.ledger import review
from rigs.bad_images import BAD
from rigs.chromium import browser, errors, needs_chromium, screen, wait_for
from rigs.flow_rig import clean, faces, folder, put_photos

pytestmark = needs_chromium
__all__ = ["browser"]  # A fixture.
ODD = 'odd <img src=x> "name" & more.jpg'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small run: photographs, a face, a file with a hostile name, a broken one, a lost source."""
    base = tmp_path_factory.mktemp("report")
    source, output = folder(base / "in"), str(base / "out")
    put_photos(source, 5)
    demo = Path(__file__).parents[2] / "jobs" / "demo_photos"
    shutil.copy(demo / "astronaut.jpg", base / "in" / "astronaut.jpg")
    shutil.copy(demo / "coffee.jpg", base / "in" / ODD)
    (base / "in" / "broken.jpg").write_bytes(BAD["truncated jpeg"][1]())
    clean(source, output, faces())
    (base / "in" / ODD).unlink()
    out = base / "report.html"
    assert main(["report", output, "-o", str(out)]) == 0
    return out


@pytest.fixture
def page(browser: Any, report: Path) -> Any:
    browser.set_window_size(1400, 1000)
    browser.get(report.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
    return browser


def shown(page: Any) -> list[str]:
    script = """return [...document.querySelectorAll('.card')].filter(c => c.offsetParent)
        .map(c => c.querySelector('.name').textContent)"""
    names: list[str] = page.execute_script(script)
    return names


def test_it_draws_itself_without_an_error_and_tells_the_counts(page: Any) -> None:
    assert len(shown(page)) == 8
    assert ODD in shown(page), "a hostile name is text"
    tiles = page.find_element("id", "tiles").text
    assert "failed" in tiles
    assert (
        "read" in page.find_element("id", "causes").text or "detect" in page.find_element("id", "causes").text
    )
    assert errors(page) == []


def test_pictures_are_there_when_scrolled_to(page: Any) -> None:
    page.execute_script("document.getElementById('gallery').scrollIntoView()")
    wait_for(
        lambda: page.execute_script(
            "return [...document.querySelectorAll('.card img')].some(i => i.naturalWidth > 50)"
        )
    )


def test_filter_and_search(page: Any) -> None:
    from selenium.webdriver.support.ui import Select

    Select(page.find_element("id", "by-status")).select_by_value("failed")
    wait_for(lambda: shown(page) == ["broken.jpg"])
    Select(page.find_element("id", "by-status")).select_by_value("")
    page.find_element("id", "search").send_keys("astro")
    wait_for(lambda: shown(page) == ["astronaut.jpg"])


def test_the_slider_compares_by_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "search").send_keys("astro")
    wait_for(lambda: shown(page) == ["astronaut.jpg"])
    page.execute_script("document.querySelector('.card:not([hidden])').scrollIntoView()")
    wait_for(
        lambda: page.execute_script(
            "return [...document.querySelectorAll('.slider')].some(s => s.offsetParent)"
        )
    )
    slider = page.execute_script("return [...document.querySelectorAll('.slider')].find(s => s.offsetParent)")
    before = int(slider.get_attribute("value"))
    slider.send_keys(Keys.ARROW_RIGHT)
    assert int(slider.get_attribute("value")) > before


def test_marks_by_keyboard_are_exported(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def press(name: str, keys: str) -> None:
        box = page.find_element("id", "search")
        box.clear()
        box.send_keys(name)
        wait_for(lambda: shown(page) == [name])
        card = page.execute_script("return document.querySelector('.card:not([hidden])')")
        page.execute_script("arguments[0].focus()", card)
        page.switch_to.active_element.send_keys(keys)

    press("broken.jpg", "wr")
    assert page.find_element("id", "marked").text == "1 redo", "nothing was removed there that could be wrong"
    press("astronaut.jpg", "w")
    assert page.find_element("id", "marked").text == "1 redo, 1 wrong"
    page.find_element("id", "export").send_keys(Keys.ENTER)
    wait_for(lambda: (page.downloads / "marks.json").exists())
    marks = review.read(page.downloads / "marks.json")
    assert sorted(mark.mark for mark in marks.marks) == ["redo", "wrong"]
    assert marks.recipe_digest


def test_full_size_opens_and_closes(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.querySelector('.card .open').click()")
    wait_for(lambda: page.execute_script("return document.getElementById('full').open"))
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait_for(lambda: not page.execute_script("return document.getElementById('full').open"))


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_no_sideways_scrolling(page: Any, width: int) -> None:
    screen(page, width)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_file_asks_no_one_for_anything(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert ODD not in text.split("</script>")[0], "names travel as escaped data"
