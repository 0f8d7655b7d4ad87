"""The report in a real browser: it opens from disk, asks nobody for anything, and does what a reader does with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser import PROGRAM, Browser, browser
from tests.report_made import KEYWORDS, SETTINGS, made, prompt
from thinkrec.report.contents import contents
from thinkrec.report.page import page

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium, chromium-browser or google-chrome on the path")


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
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


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
    file.write_text(page(contents(some, SETTINGS, prompt(), str)), encoding="utf-8")
    return file


@pytest.fixture
def opened(tab: Browser, path: Path) -> Browser:
    tab.emulate()
    tab.open(path)
    return tab


def texts(tab: Browser, selector: str) -> list[str]:
    """The texts of all elements that a selector finds."""
    found = tab.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(node => node.textContent)")
    return list(found)


def search(tab: Browser, query: str) -> list[str]:
    """The ids of the users listed after typing `query`."""
    tab.run("document.getElementById('query').focus(), document.getElementById('query').select()")
    tab.call("Input.insertText", text=query)
    return texts(tab, "#list button bdi")


def test_it_opens_from_disk_in_silence_and_asks_for_nothing_but_itself(
    opened: Browser, path: Path, listener: tuple[str, list[str]]
) -> None:
    assert opened.run("document.querySelector('h1').textContent") == "ThinkRec on small"
    assert len(texts(opened, "#tables tbody tr")) > 3
    assert texts(opened, "#written caption") == ["Reasons: the texts", "Reasons: claims"]
    assert opened.run("document.querySelectorAll('svg path.curve').length") == 4  # three models' ROC, one calibration
    for number in range(3):  # every kind of user is put on the page
        opened.run(f"document.querySelectorAll('#list button')[{number}].click()")
    assert opened.requests() == [path.as_uri()]
    assert opened.complaints() == []
    assert listener[1] == []


def test_what_a_hostile_title_id_or_reason_says_is_read_and_does_not_run(
    opened: Browser, listener: tuple[str, list[str]]
) -> None:
    title = hostile(listener[0])
    assert search(opened, "odd </script>") == [f"odd {title}"]
    opened.press("Enter")
    assert texts(opened, "#user h3 bdi") == [f"odd {title}"]
    search(opened, "u1")
    opened.press("Enter")
    assert title in "".join(texts(opened, "#target blockquote"))
    assert opened.run("typeof window.hostile") == "undefined"
    assert opened.run("document.images.length + document.querySelectorAll('body style').length") == 0
    assert opened.complaints() == []
    assert listener[1] == []


def test_the_policy_stops_what_a_script_on_the_page_would_send_or_run(
    opened: Browser, listener: tuple[str, list[str]]
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
    assert any("Content Security Policy" in said for said in opened.complaints())


def test_search_finds_users_by_id_and_by_the_titles_that_they_met(opened: Browser) -> None:
    assert len(texts(opened, "#list button")) == 100
    assert "150 users; the first 100" in texts(opened, "#found")[0]
    assert search(opened, "U149") == ["u149"]
    assert "1 user" in texts(opened, "#found")[0]
    assert len(search(opened, "night train")) == 100  # everyone rated it
    assert search(opened, "no such thing") == []
    search(opened, "")
    opened.run("document.getElementById('explained').click()")
    assert len(texts(opened, "#list button")) == 2


def test_a_user_shows_ranked_targets_and_a_target_shows_what_stands_behind_its_score(opened: Browser) -> None:
    search(opened, "odd")
    opened.press("Enter")
    assert texts(opened, "#user .rank") == ["1", "2"]
    assert texts(opened, "#target h3") == ["Last Harbor (2003)"]
    facts = dict(zip(texts(opened, "#target dt"), texts(opened, "#target dd"), strict=True))
    assert facts["probability"] == "0.800"
    assert facts["the user"] == "▲ liked"
    assert facts["true probability"] == "0.750"
    assert facts["true reason"] == "theme: sea"
    assert texts(opened, "#target .weights li") == ["global 0.250", "expert 1 0.750"]
    shown = texts(opened, "#target .history li")
    assert len(shown) == 3
    assert " · ".join(KEYWORDS[3]) in shown[2]
    assert opened.run("document.querySelectorAll('#target .history .dislike').length") == 2
    opened.run("document.querySelectorAll('#user .pick button')[1].click()")
    assert texts(opened, "#target h3") == ["Night Train (2002)"]
    assert "No reason was written" in " ".join(texts(opened, "#target .hint"))


def test_evidence_is_marked_in_the_history_and_what_is_not_so_in_the_text(opened: Browser) -> None:
    search(opened, "odd")
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


def test_where_prompts_hide_dislikes_the_history_shows_likes_and_cites_those(tab: Browser, tmp_path: Path) -> None:
    some = made(reason="Yes. Liked Old Forest.")
    (tmp_path / "report.html").write_text(page(contents(some, SETTINGS, prompt(history_labels="likes"), str)))
    tab.open(tmp_path / "report.html")
    assert texts(tab, "#target h3") == ["Last Harbor (2003)"]
    assert texts(tab, "#target .history .cited bdi") == texts(tab, "#target .history li bdi") == ["Old Forest"]


def test_the_keyboard_reaches_everything(opened: Browser) -> None:
    reached = []
    for _ in range(24):
        opened.press("Tab")
        reached.append(opened.run("(node => node.id || node.className || node.textContent)(document.activeElement)"))
    assert reached[:2] == ["skip", "Accuracy"]
    assert reached.index("query") < reached.index("explained")
    opened.run("document.getElementById('query').focus()")
    opened.press("ArrowDown")
    opened.press("ArrowDown")
    opened.press("Enter")
    assert opened.run("document.activeElement.getAttribute('data-user')") == "1"
    assert opened.run("document.activeElement.getAttribute('aria-current')") == "true"
    assert texts(opened, "#said") == ["Last Harbor: probability 0.80, rank 1 of 2, liked"]
    opened.run("document.querySelector('#roc svg').focus()")
    opened.press("ArrowRight")
    first = texts(opened, "#roc .readout")[0]
    opened.press("ArrowRight")
    assert first.startswith("thinkrec: false positive rate 0.000")
    assert texts(opened, "#roc .readout")[0] != first


def test_pointing_at_a_curve_reads_out_its_nearest_point(opened: Browser) -> None:
    opened.run("document.querySelector('#roc svg').scrollIntoView({behavior: 'instant'})")
    box = opened.run("document.querySelector('#roc svg').getBoundingClientRect().toJSON()")
    x, y = box["x"] + box["width"] * 44 / 400, box["y"] + box["height"] * 350 / 400  # the chart's origin
    opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert texts(opened, "#roc .readout")[0].endswith("false positive rate 0.000, true positive rate 0.000")


def test_every_control_has_a_name(opened: Browser) -> None:
    tree = opened.call("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "link", "searchbox", "checkbox", "region", "image", "img", "navigation")
    unnamed = [
        node for node in tree if node.get("role", {}).get("value") in controls and not node.get("name", {}).get("value")
    ]
    assert unnamed == []


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_no_width_scrolls_sideways(tab: Browser, path: Path, width: int) -> None:
    tab.emulate(width=width)
    tab.open(path)
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_dark_mode_and_reduced_motion_are_followed(tab: Browser, path: Path) -> None:
    def seen(code: str, **wishes: str) -> Any:
        tab.emulate(**wishes)
        tab.open(path)
        return tab.run(f"getComputedStyle({code}")

    light, dark = (seen("document.body).backgroundColor", scheme=scheme) for scheme in ("light", "dark"))
    assert light == "rgb(251, 250, 247)"
    assert dark == "rgb(23, 24, 27)"
    assert seen("document.documentElement).scrollBehavior") == "smooth"
    assert seen("document.documentElement).scrollBehavior", motion="reduce") == "auto"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(tab: Browser, path: Path, scheme: str) -> None:
    """WCAG 2's contrast of 4.5 to 1, of every text on the page against the nearest background."""
    tab.emulate(scheme=scheme)
    tab.open(path)
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
