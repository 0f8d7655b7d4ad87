"""The report in a real browser: it opens from disk, asks nobody for anything, and does what a reader does with it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.report_made import KEYWORDS, SETTINGS, made, prompt
from thinkrec.report.contents import contents
from thinkrec.report.page import page as report_page

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]  # tests may run as root, in containers
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and the paths that were asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Tab:
    """One page with what it requested and what its console and its exceptions said."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression in the page; promises are awaited."""
        return self.page.evaluate(code)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector finds."""
        return self.page.locator(selector).all_text_contents()

    def search(self, query: str) -> list[str]:
        """The ids of the users listed after typing `query`."""
        self.page.fill("#query", query)
        return self.texts("#list button bdi")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Tab]:
    """An empty tab of a browser that knows nothing of the others."""
    with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield Tab(context.new_page())


@pytest.fixture
def opened(tab: Tab, path: Path) -> Tab:
    tab.page.goto(path.as_uri())
    return tab


def hostile(address: str) -> str:
    """A title that would run, and call `address`, if anything of it were taken for markup."""
    return (
        f"</script><script>window.hostile=1;fetch('{address}/fetched')</script>"
        f"<img src={address}/seen onerror=window.hostile=1><style>@import '{address}/styled'</style>"
    )


@pytest.fixture(scope="module")
def path(listener: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 150 users, one title, one user id and one reason of which are hostile."""
    title = hostile(listener[0])
    some = made(
        users=150, titles=[title, "Loud City", "Old Forest", "Night Train", "Last Harbor"], reason=f"Yes. {title}"
    )
    some.users.loc[2, "user_id"] = f"odd {title}"
    written = made(users=150).reasons.assign(
        row=14, reason="Yes. Disliked Night Train. Liked 'Purple Rain'. Avoids slow."
    )
    some.reasons.loc[1] = written.loc[0]
    file = tmp_path_factory.mktemp("report") / "a report.html"
    file.write_text(report_page(contents(some, SETTINGS, prompt(), str)), encoding="utf-8")
    return file


def test_it_opens_from_disk_in_silence_and_asks_for_nothing_but_itself(
    opened: Tab, path: Path, listener: tuple[str, list[str]]
) -> None:
    assert opened.run("document.querySelector('h1').textContent") == "ThinkRec on small"
    assert len(opened.texts("#tables tbody tr")) > 3
    assert opened.texts("#written caption") == ["Reasons: the texts", "Reasons: claims"]
    assert opened.run("document.querySelectorAll('svg path.curve').length") == 4  # three models' ROC, one calibration
    for number in range(3):  # every kind of user is put on the page
        opened.run(f"document.querySelectorAll('#list button')[{number}].click()")
    assert opened.requests == [path.as_uri()]
    assert opened.complaints == []
    assert listener[1] == []


def test_what_a_hostile_title_id_or_reason_says_is_read_and_does_not_run(
    opened: Tab, listener: tuple[str, list[str]]
) -> None:
    title = hostile(listener[0])
    assert opened.search("odd </script>") == [f"odd {title}"]
    opened.press("Enter")
    assert opened.texts("#user h3 bdi") == [f"odd {title}"]
    opened.search("u1")
    opened.press("Enter")
    assert title in "".join(opened.texts("#target blockquote"))
    assert opened.run("typeof window.hostile") == "undefined"
    assert opened.run("document.images.length + document.querySelectorAll('body style').length") == 0
    assert opened.complaints == []
    assert listener[1] == []


def test_the_policy_stops_what_a_script_on_the_page_would_send_or_run(
    opened: Tab, listener: tuple[str, list[str]]
) -> None:
    """The second lock: even a script that came in could neither call out nor bring in another."""
    address = json.dumps(listener[0])
    assert opened.run(f"fetch({address}).then(() => 'sent', () => 'stopped')") == "stopped"
    opened.run(
        f"(() => {{ const image = new Image(); image.src = {address} + '/image'; document.body.append(image); "
        "const script = document.createElement('script'); script.textContent = 'window.brought = 1'; "
        "document.body.append(script); })()"
    )
    assert opened.run("new Promise(done => setTimeout(() => done(typeof window.brought), 200))") == "undefined"
    assert listener[1] == []
    assert any("Content Security Policy" in said for said in opened.complaints)


def test_search_finds_users_by_id_and_by_the_titles_that_they_met(opened: Tab) -> None:
    assert len(opened.texts("#list button")) == 100
    assert "150 users; the first 100" in opened.texts("#found")[0]
    assert opened.search("U149") == ["u149"]
    assert "1 user" in opened.texts("#found")[0]
    assert len(opened.search("night train")) == 100  # everyone rated it
    assert opened.search("no such thing") == []
    opened.search("")
    opened.run("document.getElementById('explained').click()")
    assert len(opened.texts("#list button")) == 2


def test_a_user_shows_ranked_targets_and_a_target_shows_what_stands_behind_its_score(opened: Tab) -> None:
    opened.search("odd")
    opened.press("Enter")
    assert opened.texts("#user .rank") == ["1", "2"]
    assert opened.texts("#target h3") == ["Last Harbor (2003)"]
    facts = dict(zip(opened.texts("#target dt"), opened.texts("#target dd"), strict=True))
    assert facts["probability"] == "0.800"
    assert facts["the user"] == "▲ liked"
    assert facts["true probability"] == "0.750"
    assert facts["true reason"] == "theme: sea"
    assert opened.texts("#target .weights li") == ["global 0.250", "expert 1 0.750"]
    shown = opened.texts("#target .history li")
    assert len(shown) == 3
    assert " · ".join(KEYWORDS[3]) in shown[2]
    assert opened.run("document.querySelectorAll('#target .history .dislike').length") == 2
    opened.run("document.querySelectorAll('#user .pick button')[1].click()")
    assert opened.texts("#target h3") == ["Night Train (2002)"]
    assert "No reason was written" in " ".join(opened.texts("#target .hint"))


def test_evidence_is_marked_in_the_history_and_what_is_not_so_in_the_text(opened: Tab) -> None:
    opened.search("odd")
    opened.press("Enter")
    marks = opened.run(
        "[...document.querySelectorAll('#target blockquote mark')].map(m => [m.className, m.textContent])"
    )
    assert marks == [["true", "Night Train1✓"], ["ungrounded", "Purple Rain2?"], ["untrue", "slow3✗"]]
    cited = opened.run("[...document.querySelectorAll('#target .history li')].map(li => li.className)")
    assert cited == ["", "cited", "cited"]  # Old Forest is slow, and Night Train is named
    assert {"true", "untrue", "ungrounded"} <= set(
        opened.run("[...document.querySelectorAll('#legend mark')].map(mark => mark.className)")
    )


def test_the_keyboard_reaches_everything(opened: Tab) -> None:
    reached = []
    for _ in range(24):
        opened.press("Tab")
        reached.append(opened.run("(node => node.id || node.className || node.textContent)(document.activeElement)"))
    assert reached[:2] == ["skip", "Accuracy"]
    assert reached.index("query") < reached.index("explained")
    opened.run("document.getElementById('query').focus()")
    opened.press("ArrowDown", "ArrowDown", "Enter")
    assert opened.run("document.activeElement.getAttribute('data-user')") == "1"
    assert opened.run("document.activeElement.getAttribute('aria-current')") == "true"
    assert opened.texts("#said") == ["Last Harbor: probability 0.80, rank 1 of 2, liked"]
    opened.run("document.querySelector('#roc svg').focus()")
    opened.press("ArrowRight")
    first = opened.texts("#roc .readout")[0]
    opened.press("ArrowRight")
    assert first.startswith("ThinkRec: false positive rate 0.000")
    assert opened.texts("#roc .readout")[0] != first


def test_pointing_at_a_curve_reads_out_its_nearest_point(opened: Tab) -> None:
    opened.run("document.querySelector('#roc svg').scrollIntoView({behavior: 'instant'})")
    box = opened.run("document.querySelector('#roc svg').getBoundingClientRect().toJSON()")
    x, y = box["x"] + box["width"] * 44 / 400, box["y"] + box["height"] * 350 / 400  # the chart's origin
    opened.page.mouse.move(x, y)
    assert opened.texts("#roc .readout")[0].endswith("false positive rate 0.000, true positive rate 0.000")


def test_every_control_has_a_name(opened: Tab) -> None:
    tree = opened.page.context.new_cdp_session(opened.page).send("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "link", "searchbox", "checkbox", "region", "image", "img", "navigation")
    unnamed = [
        node for node in tree if node.get("role", {}).get("value") in controls and not node.get("name", {}).get("value")
    ]
    assert tree and unnamed == []


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_no_width_scrolls_sideways(chromium: Browser, path: Path, width: int) -> None:
    with chromium.new_context(viewport={"width": width, "height": 900}, is_mobile=width < 600) as context:
        page = context.new_page()
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_mode_and_reduced_motion_are_followed(opened: Tab) -> None:
    def style(element: str, name: str, **wishes: Any) -> Any:
        opened.page.emulate_media(**wishes)
        return opened.run(f"getComputedStyle(document.{element}).{name}")

    assert style("body", "backgroundColor", color_scheme="light") == "rgb(251, 250, 247)"
    assert style("body", "backgroundColor", color_scheme="dark") == "rgb(23, 24, 27)"
    assert style("documentElement", "scrollBehavior", reduced_motion="no-preference") == "smooth"
    assert style("documentElement", "scrollBehavior", reduced_motion="reduce") == "auto"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opened: Tab, scheme: Literal["light", "dark"]) -> None:
    """WCAG 2's contrast of 4.5 to 1, of every text on the page against the nearest background."""
    opened.page.emulate_media(color_scheme=scheme)
    weak = opened.run(
        """(() => {
          const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
          const linear = c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
          const behind = node => {
            for (; node; node = node.parentElement) {
              const colour = rgb(getComputedStyle(node).backgroundColor);
              if (colour.length === 3 || colour[3] === 1) return colour;
            }
          };
          const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), weak = [];
          for (let text = walk.nextNode(); text; text = walk.nextNode()) {
            const node = text.parentElement;
            if (!text.data.trim() || ["SCRIPT", "NOSCRIPT", "STYLE"].includes(node.tagName)) continue;
            const style = getComputedStyle(node), colour = node.closest("svg") ? style.fill : style.color;
            const [low, high] = [light(rgb(colour)), light(behind(node))].sort((a, b) => a - b);
            if ((high + 0.05) / (low + 0.05) < 4.5) weak.push([text.data.slice(0, 30), node.className]);
          }
          return weak;
        })()"""
    )
    assert weak == []
