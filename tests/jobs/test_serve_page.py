"""`cleanplate serve` as its users start it, in a real Chromium; and who must not talk to it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cleanplate.jobs.cli.app import main
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.recipe.recipe import load
from rigs.bad_images import BAD
from rigs.chromium import browser, errors, needs_chromium, screen, wait_for
from rigs.model_files import sam_checkpoint
from rigs.scenes import DEMO_PHOTOS

__all__ = ["browser"]  # A fixture.
ROOT = Path(__file__).parents[2]
JPEG = (DEMO_PHOTOS / "coffee.jpg").read_bytes()


class Server:
    """A running `cleanplate serve` and its link."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-u", "-m", "cleanplate", "serve", "--no-open", "--port", "0", *words]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        result = self.process.stdout.readline()  # type: ignore[union-attr]
        found = re.search(r"http\S+", result)
        assert found, result
        self.link = found[0]
        self.address = urlsplit(self.link).netloc
        self.cookie = self.ask("GET", "/?" + urlsplit(self.link).query)[1]["set-cookie"].split(";")[0]

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        rows = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return rows

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    source = tmp_path_factory.mktemp("source")
    for name in ("astronaut.jpg", "coffee.jpg"):
        (source / name).write_bytes((DEMO_PHOTOS / name).read_bytes())
    (source / "broken.jpg").write_bytes(BAD["truncated jpeg"][1]())
    words = ["--source", str(source), "--remove", "faces", "--inpainter", "telea", "--max-bytes", "3000000"]
    result = Server(*words)
    yield result
    assert result.stop() == 0, "Ctrl-C ends it"


# --- who may talk to it ---


def test_only_who_has_the_link_and_only_this_page(server: Server) -> None:
    cookie = server.cookie
    assert server.ask("GET", "/")[0] == 401
    assert server.ask("GET", "/?token=guessed")[0] == 401
    assert server.ask("GET", "/api/start")[0] == 401
    assert server.ask("GET", "/", cookie=cookie)[0] == 200
    assert server.ask("GET", "/", cookie=cookie, host="evil.example")[0] == 421, "DNS rebinding"
    assert server.ask("GET", "/", cookie=cookie, host="localhost:9999")[0] == 200, "through a tunnel"
    assert server.ask("GET", "/", cookie=cookie, host="[::1]:9999")[0] == 200, (
        "no name, so none that was rebound"
    )
    for path in ("/api/pictures", "/api/recipe"):
        assert server.ask("POST", path, b"{}", cookie=cookie, origin="http://evil.example")[0] == 403
        assert server.ask("POST", path, b"{}", cookie=cookie, origin="null")[0] == 403
    other = server.ask("GET", "/api/source/0/thumb", cookie=cookie, sec_fetch_site="cross-site")
    assert other[0] == 403, "no other page embeds a picture from here"
    _, headers, _ = server.ask("GET", "/", cookie=cookie)
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert server.ask("GET", "/page/..%2fserve.html", cookie=cookie)[0] == 404


def test_bad_uploads_are_told_in_words(server: Server) -> None:
    def upload(body: bytes) -> tuple[int, str]:
        status, _, result = server.ask("POST", "/api/pictures", body, cookie=server.cookie)
        return status, json.loads(result).get("error", "")

    assert upload(b"")[0] == 415
    assert "not an image" in upload(b"#!/bin/sh")[1]
    for name in ("truncated jpeg", "animated gif"):
        status, result = upload(BAD[name][1]())
        assert (status, bool(result)) == (415, True), name
    assert upload(b"\xff" * 3_100_000) == (413, "3 MB; the limit here is 3 MB (--max-bytes)")
    assert server.ask("POST", "/api/pictures/none/find", b"{}", cookie=server.cookie)[0] == 400
    body = json.dumps({"recipe": load(None).model_dump(mode="json")}).encode()
    assert server.ask("POST", "/api/pictures/none/find", body, cookie=server.cookie)[0] == 404


def test_it_answers_while_the_models_work(server: Server) -> None:
    photo = (DEMO_PHOTOS / "astronaut.jpg").read_bytes()
    picture = json.loads(server.ask("POST", "/api/pictures", photo, cookie=server.cookie)[2])
    start = json.loads(server.ask("GET", "/api/start", cookie=server.cookie)[2])
    body = json.dumps({"recipe": start["recipe"]}).encode()
    answers: list[bytes] = []

    def find() -> None:
        path = f"/api/pictures/{picture['id']}/find"
        answers.append(server.ask("POST", path, body, cookie=server.cookie)[2])

    threads = [threading.Thread(target=find) for _ in range(2)]
    for thread in threads:
        thread.start()
    states = []
    while not states or len(answers) < 2:
        states.append(json.loads(server.ask("GET", "/api/state", cookie=server.cookie)[2]))
    for thread in threads:
        thread.join()
    assert any("centerface" in state["doing"] for state in states)
    assert max(state["waiting"] for state in states) == 2, "one after the other"
    first, second = (json.loads(answer)["finds"] for answer in answers)
    assert len(first) >= 1
    assert first == second


def test_a_taken_port_is_told(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    port = server.address.rpartition(":")[2]
    assert main(["serve", "--no-open", "--port", port]) == 2
    assert "another --port" in capsys.readouterr().err


# --- the page ---


@pytest.fixture
def page(browser: Any, server: Server) -> Any:
    screen(browser, 1400)
    browser.get(server.link)
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
    return browser


def opened(page: Any, name: str = "astronaut.jpg") -> None:
    page.execute_script("delete document.documentElement.dataset.found")
    page.find_element("id", "file").send_keys(str(DEMO_PHOTOS / name))
    wait_for(lambda: page.execute_script("return document.documentElement.dataset.found"), 60)


def red(page: Any) -> int:
    """Pixels of the mask that the page shows."""
    script = """const c = document.querySelector('#sheet > canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 127; return n;"""
    return int(page.execute_script(script))


@needs_chromium
def test_upload_find_toggle_brush_run_compare_and_save(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened(page)
    found = red(page)
    assert found > 1000, "the face is masked"
    box = page.find_element("css selector", "[data-find='0']")
    box.send_keys(Keys.SPACE)
    assert red(page) == 0
    assert not page.find_element("id", "run").is_enabled(), "nothing to fill"
    threshold = page.find_element("css selector", "[data-threshold=face]")
    box.send_keys(Keys.SPACE)

    view = page.find_element("id", "view")
    ActionChains(page).move_to_element_with_offset(view, -200, -200).click_and_hold().move_by_offset(
        80, 0
    ).release().perform()
    painted = red(page)
    assert painted > found, "a stroke by mouse"
    page.find_element("id", "undo").click()
    assert red(page) == found
    page.find_element("id", "redo").click()
    assert red(page) == painted
    page.find_element("tag name", "body").send_keys("e")
    page.execute_script("arguments[0].focus()", view)
    view.send_keys(Keys.SPACE)
    assert red(page) != painted, "erased by keyboard"
    page.find_element("id", "undo").click()

    threshold.send_keys(Keys.END)
    assert box.is_selected(), "what a person chose outlives a threshold"
    view.send_keys(Keys.CONTROL, Keys.ENTER)
    wait_for(lambda: page.find_element("id", "result").is_displayed(), 60)
    assert "every JPEG block as it was" in page.find_element("id", "result").text
    slider = page.find_element("css selector", "#sheet .slider")
    slider.send_keys(Keys.ARROW_LEFT)
    assert slider.get_attribute("value") == "49"
    page.find_element("id", "download").send_keys(Keys.ENTER)
    file = page.downloads / "astronaut-clean.jpg"
    wait_for(file.exists)
    assert (
        encode.decode(file.read_bytes()).pixels.shape
        == encode.decode((DEMO_PHOTOS / "astronaut.jpg").read_bytes()).pixels.shape
    )
    page.find_element("id", "save").send_keys(Keys.ENTER)
    wait_for((page.downloads / "recipe.yaml").exists)
    recipe = load(page.downloads / "recipe.yaml")
    assert (recipe.remove, recipe.inpaint.name, recipe.detect_for("face").min_score) == (
        ("face",),
        "telea",
        1.0,
    )
    rows = [error for error in errors(page) if "/thumb" not in error]  # broken.jpg has no preview.
    assert rows == []


@needs_chromium
def test_a_click_masks_the_object_under_it(browser: Any, page: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    tool = "[data-tool='object']:not(#sheet)"
    lacking = page.find_element("css selector", tool)
    assert not lacking.is_enabled()
    assert "cleanplate weights fetch sam-vit-b" in lacking.get_attribute("title")
    sam = sam_checkpoint(tmp_path / "sam.pth")
    server = Server(
        "--remove", "codes", "--inpainter", "telea", "--segmenter", "sam", "--set", f"masks.checkpoint={sam}"
    )
    try:
        browser.get(server.link)
        wait_for(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
        opened(browser)
        assert red(browser) == 0
        browser.find_element("css selector", tool).click()
        ActionChains(browser).move_to_element(browser.find_element("id", "sheet")).click().perform()
        wait_for(lambda: red(browser) > 0, 60)
        assert browser.find_element("id", "run").is_enabled()
        browser.find_element("id", "undo").click()
        assert red(browser) == 0
        browser.find_element("id", "redo").click()
        browser.find_element("id", "run").click()
        wait_for(lambda: browser.find_element("id", "result").is_displayed(), 60)
        assert not browser.find_element("id", "problem").is_displayed()
        assert [error for error in errors(browser) if "/thumb" not in error] == []
    finally:
        assert server.stop() == 0


@needs_chromium
def test_a_picture_of_the_source_by_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def choose(name: str) -> None:
        search = page.find_element("id", "q")
        search.clear()
        search.send_keys(name)
        first = "return document.querySelector('#grid button')?.title"
        wait_for(lambda: page.execute_script(first) == name)
        assert page.find_element("id", "counted").text == "1 of 3 pictures"
        page.find_element("css selector", "#grid button").send_keys(Keys.ENTER)

    page.execute_script("delete document.documentElement.dataset.found")
    choose("coffee.jpg")
    wait_for(lambda: page.find_element("id", "name").text == "coffee.jpg")
    wait_for(lambda: page.execute_script("return document.documentElement.dataset.found"), 60)
    page.find_element("id", "to-pictures").send_keys(Keys.ENTER)
    choose("broken.jpg")
    wait_for(lambda: page.find_element("id", "problem").is_displayed())
    assert "truncated" in page.find_element("id", "problem").text


@needs_chromium
def test_a_dropped_file_that_is_no_picture_is_told(page: Any) -> None:
    page.execute_script(
        """const data = new DataTransfer();
        data.items.add(new File(["no picture"], "notes.jpg"));
        dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));"""
    )
    wait_for(lambda: page.find_element("id", "problem").is_displayed())
    assert "not an image" in page.find_element("id", "problem").text


@needs_chromium
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_no_sideways_scrolling(page: Any, width: int) -> None:
    screen(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    opened(page)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_run_brings_its_recipe_and_its_rows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "face.jpg").write_bytes((DEMO_PHOTOS / "astronaut.jpg").read_bytes())
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    words = ["run", source, output, "--here", "--remove", "faces", "--inpainter", "ns", "--faces", "ns"]
    assert main(words) in (0, 1)
    result = Server(output)
    try:
        start = json.loads(result.ask("GET", "/api/start", cookie=result.cookie)[2])
        assert (start["recipe"]["remove"], start["recipe"]["inpaint"]["name"]) == (["face"], "ns")
        (item,) = json.loads(result.ask("GET", "/api/source", cookie=result.cookie)[2])["items"]
        assert item == {"n": 0, "name": "face.jpg", "status": "cleaned"}
    finally:
        result.stop()


@pytest.mark.parametrize(
    "change",
    [
        {"remove": ["given"], "given": {"file": "/etc/passwd"}},
        {"remove": ["logo"], "logos": {"references": ["/etc/passwd"]}},
        {"inpaint": {"name": "/etc/passwd"}},
        {"inpaint": {"per_kind": {"face": "/etc/passwd"}}},
        {"remove": ["person"], "persons": {"model": "/etc/passwd"}},
        {"masks": {"segmenter": "sam", "checkpoint": "/etc/passwd"}},
    ],
)
def test_the_page_may_name_only_what_was_offered(server: Server, change: dict[str, Any]) -> None:
    """Whoever has the link could read the first line of any file of this machine."""
    picture = json.loads(server.ask("POST", "/api/pictures", JPEG, cookie=server.cookie)[2])["id"]
    for what, more in (("find", {}), ("run", {"on": []})):
        body = json.dumps({"recipe": change, **more}).encode()
        status, _, result = server.ask("POST", f"/api/pictures/{picture}/{what}", body, cookie=server.cookie)
        assert status == 400
        assert b"the page may not name files" in result
        assert b"root:" not in result


def test_a_source_that_is_not_there_or_empty_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--no-open", "--source", str(tmp_path / "nowhere")]) == 2
    assert main(["serve", "--no-open", "--source", str(tmp_path)]) == 2
    assert "no pictures under" in capsys.readouterr().err
