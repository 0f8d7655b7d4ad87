"""The page of `thinkrec serve` in a real browser: from a user or a history to ranked items and their reasons."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.serve.test_server import served
from thinkrec.recommender import Recommender

CHROMIUM = shutil.which("chromium")
HOSTILE = "</li><script>window.hostile=1</script><img src=x onerror=window.hostile=1>"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium")


@pytest.fixture
def page(recommender: Recommender) -> Iterator[Page]:
    """The page over a catalogue in which every title is hostile, opened; nothing but its server was asked."""
    hostile = Recommender.__new__(Recommender)
    titles = recommender._items["title"] + HOSTILE
    hostile.__dict__ |= recommender.__dict__ | {"_items": recommender._items.assign(title=titles)}
    hostile.__dict__.pop("_checker", None)  # it keeps the titles
    with served(hostile) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(str(error)))
        page.goto(address)
        yield page
        browser.close()
    assert [url for url in asked if not url.startswith(f"{address}/")] == []


def test_from_a_user_to_items_and_from_an_item_to_its_reason(page: Page, recommender: Recommender) -> None:
    page.fill("#query", "u00003")
    page.locator("#list button", has_text="u00003").click()
    page.locator("#said", has_text="20 items for u00003").wait_for()
    best = recommender.recommend("u00003", 20)
    titles = page.locator("#ranked bdi").all_text_contents()
    assert titles == [f"{title}{HOSTILE}" for title in best["title"]]
    assert f"{best['probability'][0] * 100:.1f} %" in page.locator("#ranked button").first.inner_text()
    page.locator("#ranked button").first.click()
    page.locator("#target blockquote").wait_for()
    why = recommender.explain("u00003", best["item_id"][0])
    shown = dict(zip(*(page.locator(f"#target {tag}").all_text_contents() for tag in ("dt", "dd")), strict=True))
    names = [name.replace("_", " ") for name in why.weights]
    weights = dict(zip(names, (f"{weight * 100:.1f} %" for weight in why.weights.values()), strict=True))
    assert shown == {"probability": f"{why.probability * 100:.1f} %", **weights}
    assert page.locator("#target .history li").count() == len(why.history)
    assert page.evaluate("typeof window.hostile") == "undefined" and page.locator("img").count() == 0


def test_what_somebody_liked_changes_what_is_recommended(page: Page, recommender: Recommender) -> None:
    # Before the server asks the same models in a thread of its own.
    expected = recommender.recommend([("i00001", True), ("i00005", False)], 1)["title"][0]
    for number in (1, 5):
        page.fill("#title", f"i{number:05d}")
        page.locator("#titles button").click()
    page.locator("#said", has_text="20 items for you").wait_for()
    page.locator("#history button").nth(2).click()  # the second: disliked instead
    page.locator("#history .dislike").wait_for()
    page.locator("#ranked bdi").first.filter(has_text=expected).wait_for()
