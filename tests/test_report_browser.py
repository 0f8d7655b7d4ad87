"""The report in a real browser: it opens from disk, asks nobody for anything, and does what a reader does with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from tests.claims.rows import LITERAL
from tests.report_artefacts import KEYWORDS, SETTINGS, TITLES, make_artefacts, prompt
from thinkrec.claims.claims import UNTRUE
from thinkrec.report.contents import contents, sections
from thinkrec.report.page import page as report_page

ADDRESS = "http://elsewhere.test"
# A title that would run, and call ADDRESS, if anything of it were taken for markup.
HOSTILE = (
    f"</script><script>window.hostile=1;fetch('{ADDRESS}/fetched')</script>"
    f"<img src={ADDRESS}/seen onerror=window.hostile=1><style>@import '{ADDRESS}/styled'</style>"
)
CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]  # tests may run as root, in containers
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Tab:
    """One page with what it requested, what of that left the browser, and what its console and its exceptions said."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.sent: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.route("http://**", self.answer)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

        self.run = page.evaluate  # the value of a JavaScript expression in the page; promises are awaited

    def answer(self, route: Route) -> None:
        """In the place of the network, which the page's policy should let nothing reach."""
        self.sent.append(route.request.url)
        route.fulfill(body="")

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector finds."""
        return self.page.locator(selector).all_text_contents()

    def search(self, query: str) -> list[str]:
        """The ids of the users listed after typing `query`."""
        self.page.fill("#query", query)
        return self.texts("#list button bdi")

    def choose(self, query: str) -> None:
        """Open the first user that `query` finds."""
        self.search(query)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


@pytest.fixture
def tab(chromium: Browser, path: Path) -> Iterator[Tab]:
    """The report in a tab of a browser that knows nothing of the others."""
    with chromium.new_page(viewport={"width": 1280, "height": 900}) as page:
        tab = Tab(page)
        page.goto(path.as_uri())
        yield tab


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 150 users, one title, one user id and one reason of which are hostile."""
    artefacts = make_artefacts(users=150, titles=[HOSTILE, *TITLES[1:]], reason=f"Yes. {HOSTILE}")
    artefacts.users.loc[2, "user_id"] = f"odd {HOSTILE}"
    artefacts.reasons.loc[1] = {
        "row": 14,
        "reason": "Yes. Disliked Night Train. Liked 'Purple Rain'. Avoids slow.",
        "teacher": None,
    }
    file = tmp_path_factory.mktemp("report") / "a report.html"
    value = contents(artefacts, prompt(), LITERAL, lists={2: {"popularity": [(4, 1), (3, None)]}})
    ranking = {"about": "One list.", "heads": ["model", "HR@10"], "rows": [["popularity", ".5000"]]}
    file.write_text(report_page(value, sections(artefacts, SETTINGS) | {"ranking": ranking}), encoding="utf-8")
    return file


def test_it_opens_from_disk_in_silence_and_asks_for_nothing_but_itself(tab: Tab, path: Path) -> None:
    assert tab.texts("h1") == ["ThinkRec on small"]
    tab.page.get_by_text("All figures, new items", exact=True).click()
    assert tab.page.get_by_role("region", name="Models, new items").is_visible()
    assert tab.page.get_by_role("region", name="ThinkRec minus each, new items").locator("tbody tr").count() == 1
    assert tab.count("svg path.curve") == 4  # three models' ROC, one calibration
    for number in range(3):  # every kind of user is put on the page
        tab.page.locator("#list button").nth(number).click()
    assert tab.requests == [path.as_uri()]
    assert tab.complaints == tab.sent == []


def test_what_a_hostile_title_id_or_reason_says_is_read_and_does_not_run(tab: Tab) -> None:
    assert tab.search("odd </script>") == [f"odd {HOSTILE}"]
    tab.press("Enter")
    assert tab.texts("#user h3 bdi") == [f"odd {HOSTILE}"]
    tab.choose("u1")
    assert HOSTILE in "".join(tab.texts("#target blockquote"))
    assert tab.run("typeof window.hostile") == "undefined"
    assert tab.count("img") + tab.count("body style") == 0
    assert tab.complaints == tab.sent == []


def test_the_policy_stops_what_a_script_on_the_page_would_send_or_run(tab: Tab) -> None:
    """The second lock: even a script that came in could neither call out nor bring in another."""
    assert tab.run(f"fetch('{ADDRESS}').then(() => 'sent', () => 'stopped')") == "stopped"
    tab.run(
        f"(() => {{ const image = new Image(); image.src = '{ADDRESS}/image'; document.body.append(image); "
        "const script = document.createElement('script'); script.textContent = 'window.brought = 1'; "
        "document.body.append(script); })()"
    )
    assert tab.run("new Promise(done => setTimeout(() => done(typeof window.brought), 200))") == "undefined"
    assert tab.sent == []
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)


def test_search_finds_users_by_id_and_by_the_titles_that_they_met(tab: Tab) -> None:
    assert tab.count("#list button") == 100
    assert "150 users; the first 100" in tab.texts("#found")[0]
    assert tab.search("U149") == ["u149"]
    assert "1 user" in tab.texts("#found")[0]
    assert len(tab.search("night train")) == 100  # everyone rated it
    assert tab.search("no such thing") == []
    tab.page.set_viewport_size({"width": 820, "height": 900})
    tab.search("night train")
    heights = tab.run("[...document.querySelectorAll('#list bdi')].map(node => node.clientHeight)")
    assert max(heights) < 30  # pixels: an id stands on one line, and two are 50
    tab.search("")
    tab.page.check("#explained")
    assert tab.count("#list button") == 2


def test_a_user_shows_ranked_targets_and_a_target_shows_what_stands_behind_its_score(tab: Tab) -> None:
    tab.choose("odd")
    assert tab.texts("#user .rank") == ["1", "2"]
    assert tab.texts("#target h3") == ["Last Harbor (2003)"]
    facts = dict(zip(tab.texts("#target dt"), tab.texts("#target dd"), strict=True))
    names = ("probability", "the user", "true probability", "true reason")
    assert [facts[name] for name in names] == ["0.800", "▲ liked", "0.750", "theme: sea"]
    assert tab.texts("#target .weights li") == ["global 0.250", "expert 1 0.750"]
    shown = tab.texts("#target .history li")
    assert len(shown) == 3 and " · ".join(KEYWORDS[3]) in shown[2]
    assert tab.count("#target .history .dislike") == 2
    tab.page.locator("#user .pick button").nth(1).click()
    assert tab.texts("#target h3") == ["Night Train (2002)"]
    assert "No reason was written" in " ".join(tab.texts("#target .hint"))


def test_a_users_list_of_all_items_says_what_was_liked_later(tab: Tab) -> None:
    assert tab.texts("#ranking tbody tr > *") == ["popularity", ".5000"]
    tab.choose("u1")
    assert tab.count("#user details") == 0
    tab.choose("odd")
    assert tab.texts("#user summary") == ["popularity: 1 of its first 2 liked later"]
    tab.page.locator("#user summary").click()
    assert tab.texts("#user details li") == ["▲Last Harbor (2003)", "Night Train (2002)"]
    assert tab.complaints == tab.sent == []


def test_an_address_names_a_user_and_an_item_and_opens_them(chromium: Browser, path: Path, tab: Tab) -> None:
    tab.choose("u77")
    tab.page.locator("#user .pick button").nth(1).click()
    assert tab.page.url.endswith("#user/u77/item/i3")
    with chromium.new_page() as page:
        other = Tab(page)
        page.goto(tab.page.url)
        assert (other.texts("#user h3 bdi"), other.texts("#target h3")) == (["u77"], ["Night Train (2002)"])
        other.page.evaluate("location.hash = '#user/u78'")
        other.page.wait_for_function("document.querySelector('#user h3 bdi').textContent === 'u78'")
        other.page.evaluate("location.hash = '#user/nobody'")
        other.page.wait_for_function("document.querySelector('#found').textContent.includes('nobody is not in this')")
        assert other.texts("#user h3 bdi") == ["u78"] and other.complaints == []


def test_without_scripts_the_page_says_who_is_ahead_and_by_how_much(chromium: Browser, path: Path) -> None:
    with chromium.new_page(java_script_enabled=False, viewport={"width": 390, "height": 900}) as page:
        page.goto(path.as_uri())
        assert page.locator("#lead").inner_text().startswith("On 300 test interactions ThinkRec is ahead of")
        leads = page.get_by_role("region", name="Leads by AUC, test")
        assert leads.locator("tbody tr").count() == leads.locator("svg circle").count() == 1
        assert page.locator("noscript").is_visible() and not page.locator("#query").is_visible()


def test_on_paper_the_chosen_user_stands_below_the_figures_within_the_page(tab: Tab) -> None:
    tab.page.emulate_media(media="print")
    tab.page.set_viewport_size({"width": 720, "height": 1000})
    assert tab.run("document.documentElement.scrollWidth") <= 720
    assert not tab.page.locator("nav").is_visible() and not tab.page.locator("#query").is_visible()
    assert tab.page.locator("#target h3").is_visible() and tab.page.locator("#lead").is_visible()


def test_evidence_is_marked_in_the_history_and_what_is_not_so_in_the_text(tab: Tab) -> None:
    tab.choose("odd")

    def classes(selector: str) -> list[str]:
        return [node.get_attribute("class") or "" for node in tab.page.locator(selector).all()]

    marks = "#target blockquote mark"
    assert tab.texts(marks) == ["Night Train1✓", "Purple Rain2?", "slow3✗"]
    assert classes(marks) == ["true", "ungrounded", "untrue"]
    assert classes("#target .history li") == ["", "cited", "cited"]  # Old Forest is slow, Night Train is named
    assert set(classes("#legend mark")) == {"true", *UNTRUE}


def test_the_keyboard_reaches_everything(tab: Tab) -> None:
    reached = []
    for _ in range(24):
        tab.press("Tab")
        reached.append(tab.run("(node => node.id || node.className || node.textContent)(document.activeElement)"))
    assert reached[:2] == ["skip", "Accuracy"]
    assert reached.index("query") < reached.index("explained")
    tab.page.focus("#query")
    tab.press("ArrowDown", "ArrowDown", "Enter")
    assert tab.page.locator(":focus").get_attribute("data-user") == "1"
    assert tab.page.locator(":focus").get_attribute("aria-current") == "true"
    assert tab.texts("#said") == ["Last Harbor: probability 0.80, rank 1 of 2, liked"]
    tab.page.focus("#roc svg")
    tab.press("ArrowRight")
    (first,) = tab.texts("#roc .readout")
    tab.press("ArrowRight")
    assert first.startswith("ThinkRec: false positive rate 0.000")
    assert tab.texts("#roc .readout") != [first]


def test_pointing_at_a_curve_reads_out_its_nearest_point(tab: Tab) -> None:
    tab.run("document.querySelector('#roc svg').scrollIntoView({behavior: 'instant'})")
    box = tab.run("document.querySelector('#roc svg').getBoundingClientRect().toJSON()")
    tab.page.mouse.move(box["x"] + box["width"] * 44 / 400, box["y"] + box["height"] * 350 / 400)  # the chart's origin
    assert tab.texts("#roc .readout")[0].endswith("false positive rate 0.000, true positive rate 0.000")


def test_every_control_has_a_name(tab: Tab) -> None:
    tree = tab.page.context.new_cdp_session(tab.page).send("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "link", "searchbox", "checkbox", "region", "image", "img", "navigation")
    unnamed = [
        node for node in tree if node.get("role", {}).get("value") in controls and not node.get("name", {}).get("value")
    ]
    assert tree and unnamed == []


@pytest.mark.parametrize("width", [320, 390, 820, 1440])
def test_no_width_scrolls_sideways(chromium: Browser, path: Path, width: int) -> None:
    with chromium.new_page(viewport={"width": width, "height": 900}, is_mobile=width < 600) as page:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_mode_and_reduced_motion_are_followed(tab: Tab) -> None:
    def style(element: str, name: str, **wishes: Any) -> Any:
        tab.page.emulate_media(**wishes)
        return tab.run(f"getComputedStyle(document.{element}).{name}")

    assert style("body", "backgroundColor", color_scheme="light") == "rgb(251, 250, 247)"
    assert style("body", "backgroundColor", color_scheme="dark") == "rgb(23, 24, 27)"
    assert style("documentElement", "scrollBehavior", reduced_motion="no-preference") == "smooth"
    assert style("documentElement", "scrollBehavior", reduced_motion="reduce") == "auto"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(tab: Tab, scheme: Literal["light", "dark"]) -> None:
    """WCAG 2's contrast of 4.5 to 1, of every text on the page against the nearest background."""
    tab.page.emulate_media(color_scheme=scheme)
    weak = tab.run(
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
