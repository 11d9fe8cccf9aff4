"""The page in headless Chromium: typed into, clicked, looked at. Its pictures for docs/serve.md are taken here:

.venv/bin/colmrl loop --config demo loop.rounds=1 output=outputs/shown     # three minutes of a core
COLMRL_SCREENSHOTS=docs/images COLMRL_STORE=outputs/shown/round-1/store .venv/bin/pytest tests/serving/test_page.py
"""

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from driving import CHROMIUM, DRIVER, browser, served, sized
from PIL import Image
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.configure import load_config
from colmrl.data.media import open_image
from colmrl.data.records import Query
from colmrl.search import Plan
from colmrl.showing.answering import Answerer
from colmrl.showing.explaining import explain, paint

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no chromium and chromedriver on the PATH"),
    pytest.mark.slow,
]
SHOTS, STORE = os.environ.get("COLMRL_SCREENSHOTS"), os.environ.get("COLMRL_STORE")
DESKTOP, PHONE = (1280, 800), (390, 844)
TEXT = "cyan cross top left and red circle top right"  # of the demo's queries one that the sizes differ on
SMALL, LARGE = ("single@64", "multi@128") if STORE else ("single@32", "multi@64")
IN_DOCS = {"compare", "overlay", "dark", "phone", "phone-overlay"}
CPU = ["device=cpu", "threads=1"]
_SETTLED = """return document.body.dataset.shown === location.search && !document.querySelector(".waiting")
  && [...document.images].filter(one => one.offsetParent && one.getAttribute("src"))
       .every(one => one.complete && one.naturalWidth > 0)"""


class Page:
    def __init__(self, driver, url, store, folder):
        self.driver, self.url, self.store, self.folder = driver, url, store, folder

    def go(self, address="", size=DESKTOP, dark=False):
        sized(self.driver, *size, dark)
        self.driver.get(self.url + "/" + address)
        return self.settle()

    def wait(self, script, seconds=120):
        """Until a script says so, which must not take long."""
        end = time.monotonic() + seconds
        while not self.driver.execute_script(script):
            assert time.monotonic() < end, f"{script}: not within {seconds} s: {self.text('body')[:500]}"
            time.sleep(0.02)
        return self

    def settle(self):
        return self.wait(_SETTLED)

    def one(self, selector, panel=0):
        return self.all(selector)[panel]

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        return self.one(selector).text

    def found(self, panel=0):
        script = "return [...document.querySelectorAll('.panel')[arguments[0]].querySelectorAll('.card')]"
        return self.driver.execute_script(script + ".map(card => card.dataset.id)", panel)

    def ms(self, panel=0):
        return float(self.one(".times .search", panel).text.split()[1])

    def ask(self, text):
        field = self.one("#query")
        field.clear()
        field.send_keys(text, "\n")
        return self.settle()

    def choose(self, view, panel=0):
        self.one(f".view option[value='{view}']", panel).click()
        return self.settle()

    def press(self, key):
        self.driver.switch_to.active_element.send_keys(key)

    def shoot(self, name):
        """A look, for docs where it is asked for."""
        shot = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        out = Path(SHOTS if SHOTS and name in IN_DOCS else self.folder) / f"serve-{name}.png"
        shot.save(out, optimize=True)
        assert out.stat().st_size < 300_000
        return shot

    def fits(self):
        """Nothing scrolls sideways, and the console is silent."""
        wide = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        needed, width = self.driver.execute_script(wide)
        assert needed <= width and self.driver.get_log("browser") == []
        return self

    def by_command(self, text, view, k=12):
        """The ids that `colmrl search` finds."""
        out = self.folder / "by-command"
        flags = ["--store", self.store, "--query", text, "--view", view, "--k", k, "--out", out, *CPU]
        made = CliRunner().invoke(main_app, ["search", *map(str, flags)])
        assert made.exit_code == 0, made.output
        return [json.loads(line)["id"] for line in (out / "results.jsonl").read_text().splitlines()]

    def ids(self, text, view, *images, k=12):
        """The same by what that command calls, opened once."""
        answered = self.answerer.ask(Query("query", text, images), Plan.parse(view), k)
        return [result.document.id for result in answered.results]


@pytest.fixture(scope="module")
def page(request, tmp_path_factory):
    """Of the sample's store, or of the one that is named."""
    store = Path(STORE) if STORE else request.getfixturevalue("store")
    folder = tmp_path_factory.mktemp("page")
    with served(load_config(None, CPU), store) as (url, desk), browser(folder) as driver:
        page = Page(driver, url, store, folder)
        page.desk, page.answerer = desk, Answerer(load_config(None, CPU), store)  # another than the server's
        yield page


def test_typing_and_enter_find_what_colmrl_search_finds_at_every_view_that_is_chosen(page):
    price = f"{4 * int(SMALL.removeprefix('single@'))} bytes a document"
    page.go().shoot("begin")
    assert len(page.all("#examples button")) == 6 and page.found() == []
    page.choose(SMALL).ask(TEXT)
    single, single_ms = page.found(), page.ms()
    assert single == page.by_command(TEXT, SMALL) and len(single) == 12
    assert page.text(".bytes") == price and "encode" in page.text(".times")
    page.shoot("single")
    page.choose(LARGE)
    multi, said = page.found(), page.text(".times")
    assert multi == page.by_command(TEXT, LARGE) and multi != single
    assert page.text(".bytes") != price and "encoded before" in said
    assert page.ms() > 0 and page.ms() != single_ms
    page.fits().shoot("multi")
    page.driver.back()
    assert page.settle().found() == single and SMALL.replace("@", "%40") in page.driver.current_url
    page.driver.refresh()
    assert page.settle().found() == single and page.one("#query").get_attribute("value") == TEXT


def test_a_view_or_funnel_of_ones_own_is_typed(page):
    page.go("?q=red+ring").choose("…")
    field = page.one(".own input")
    field.clear()
    field.send_keys("single@32/5+multi@64:int8\n")
    assert page.settle().found() == page.ids("red ring", "single@32/5+multi@64:int8")
    field = page.one(".own input")
    field.clear()
    field.send_keys("multi@77\n")
    assert "was not trained: choose from" in page.settle().text(".error") and page.found() == []
    page.shoot("error")
    assert page.choose("single@128").found() and not page.one(".error").is_displayed()
    page.driver.get_log("browser")  # it says that an answer was 400


def test_two_views_side_by_side(page):
    page.go(f"?q={TEXT.replace(' ', '+')}&view={SMALL}")
    page.one("#query").send_keys("\ue00c")  # Escape: out of the field
    page.press("c")
    page.settle()
    assert len(page.all(".panel")) == 2
    page.choose(LARGE, 1)
    one, two = page.found(0), page.found(1)
    assert two == page.ids(TEXT, LARGE) and one != two
    marks = [mark.text for mark in page.all(".moved")]
    for place, (name, mark) in enumerate(zip(two, marks, strict=True)):
        was = one.index(name) - place if name in one else None
        assert mark == ("new" if was is None else "=" if not was else f"{'▲' if was > 0 else '▼'} {abs(was)}")
    assert page.ms(0) > 0 and page.ms(1) > 0
    page.fits().shoot("compare")
    page.one("#compare").click()
    assert page.settle().found() == one and len(page.all(".panel")) == 1


def test_a_picture_is_looked_for(page):
    path = page.answerer.ask(Query("query", TEXT), Plan.parse(LARGE), 3).results[2].document.images[0]
    page.go(f"?view={SMALL}").one("#file").send_keys(path)
    page.wait("return document.querySelectorAll('.card').length === 12").settle()
    assert page.found() == page.ids("", SMALL, path)
    assert page.one("#picture img").is_displayed()
    page.shoot("picture")
    page.ask("red")
    assert page.found() == page.ids("red", SMALL, path)
    page.driver.refresh()  # the picture's name is in the address
    assert page.settle().one("#picture img").is_displayed() and len(page.found()) == 12
    page.one("#picture button").click()
    assert page.settle().found() == page.ids("red", SMALL)
    text = page.folder / "text.png"
    text.write_text("no picture")
    page.one("#file").send_keys(str(text))
    page.wait("return !document.querySelector('.error').hidden")
    assert "picture: not a readable picture" in page.text(".error")
    page.driver.get_log("browser")


def test_a_click_shows_what_a_page_matched_by(page):
    page.go(f"?q={TEXT.replace(' ', '+')}&view={LARGE}")
    answered = page.answerer.ask(Query("query", TEXT), Plan.parse(LARGE), 2)
    first, second = answered.results
    explained, picture = explain(answered, first), open_image(first.document.images[0])
    page.one(".card").click()
    page.wait("return document.querySelectorAll('#tokens button').length > 2").settle()
    said = [chip.text.rpartition(" ") for chip in page.all("#tokens button")[2:]]
    assert [name for name, _, _ in said] == explained.names
    np.testing.assert_allclose([float(number) for _, _, number in said], explained.heats.max((1, 2)), atol=0.0051)

    def differs(expected):
        """By how many levels, in the mean, what is seen of the sheet."""
        seen = Image.open(io.BytesIO(page.one("#sheet .plain").screenshot_as_png)).convert("RGB")
        expected = expected.resize(seen.size, Image.Resampling.BILINEAR)
        return np.abs(np.asarray(seen, dtype=float) - np.asarray(expected, dtype=float))[8:-8, 8:-8].mean()

    painted = paint(picture, explained.mean, *explained.mean_scale)
    assert differs(painted) < 6 < 2 * 6 < differs(picture)
    page.all("#tokens button")[3].click()
    painted = paint(picture, explained.heats[1], *explained.scale)
    assert differs(painted) < 6
    page.press("\ue013")  # up: the token before
    assert differs(paint(picture, explained.heats[0], *explained.scale)) < 6
    assert page.driver.switch_to.active_element.text.startswith(explained.names[0])
    page.fits().shoot("overlay")
    page.all("#tokens button")[0].click()
    assert differs(picture) < 6
    page.press("\ue014")  # right: the next result
    page.wait(f"return document.querySelector('#page-name').textContent.startsWith('{second.document.id}')").settle()
    page.press("\ue00c")
    assert not page.one("#page").is_displayed()
    assert page.driver.switch_to.active_element.get_attribute("data-id") == second.document.id
    page.press("\ue012")  # left
    assert page.driver.switch_to.active_element.get_attribute("data-id") == first.document.id


def test_what_is_loading_is_seen_to(page, monkeypatch):
    search = page.desk.search

    def slow(*asked):
        time.sleep(0.6)
        return search(*asked)

    page.go()
    monkeypatch.setattr(page.desk, "search", slow)
    page.one("#examples button").click()
    page.wait("return document.querySelectorAll('.waiting .skeleton').length === 6")
    page.settle()
    assert len(page.found()) == 12 and page.all(".skeleton") == []


def test_it_is_readable_on_a_phone_and_in_the_dark(page):
    address = f"?q={TEXT.replace(' ', '+')}&view={LARGE}"
    page.go(address, PHONE).fits().shoot("phone")
    page.one(".card").click()
    page.wait("return document.querySelectorAll('#tokens button').length > 2").settle().fits().shoot("phone-overlay")
    light = np.asarray(page.go(address).shoot("light"), dtype=int)[-20:].mean()
    dark = np.asarray(page.go(address, dark=True).fits().shoot("dark"), dtype=int)[-20:].mean()
    assert light > 200 and dark < 60
    page.go(address + f"&against={SMALL}", PHONE).fits()
