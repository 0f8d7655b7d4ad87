"""The ledger for people: one of each kind, and nothing of it can become markup."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from tests.claims.rows import checker_of, item
from thinkrec.shown import ShownRow
from thinkrec.synthesis.examples import write_examples

KEPT = pd.DataFrame({"row": [4, 5], "label": [0, 1], "turns": [2, 1], "text": ["No. War.", "Yes. Love."]})


def rejected(*texts):
    faults = ["wrong_verdict", "refused", "wrong_verdict"]
    return pd.DataFrame(
        {"row": [7, 8, 9], "label": [1, 0, 1], "turn": [1, 2, 3], "fault": faults, "detail": texts, "text": texts}
    )


def reader(title):
    return checker_of(lambda row: ShownRow(history=[item(title, "war", liked=True)], target=item(f"{row}")))


def test_the_first_of_each_kind_stands_in_the_order_of_the_filters():
    page = write_examples(KEPT, rejected("a", "b", "c"), reader("Dusk"))
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# One trace, and one refused answer of each kind",
        "## Kept: row 4, label No, answer 2",
        "## refused (1): row 8, label No, answer 2",
        "## wrong_verdict (2): row 7, label Yes, answer 1",
    ]
    assert '{"title": "Dusk", "keywords": ["war"], "verdict": "liked"}' in page
    assert "\n```text\na\n```\n" in page and "\n```text\nc\n```\n" not in page


def test_without_rows_there_is_a_page_all_the_same():
    assert write_examples(KEPT[:0], rejected("a", "b", "c")[:0], reader("")).count("\n") == 1


@given(st.text(alphabet=st.sampled_from("`#\n\r\u2028 <a>~")), st.text(alphabet="`# a"))
def test_no_text_ends_its_fence(text, title):
    lines = write_examples(KEPT, rejected(text, "b", "c"), reader(title)).split("\n")
    outside, fence = [], None
    for line in lines:
        if fence is None and line.startswith("```"):
            fence = line.removesuffix("text")
        elif line == fence:
            fence = None
        elif fence is None:
            outside.append(line)
        else:
            assert fence not in line
    assert fence is None
    assert all(line in ("", "Found:") or line.startswith(("# One", "## ")) for line in outside)
    assert sum(line.startswith("#") for line in outside) == 4
