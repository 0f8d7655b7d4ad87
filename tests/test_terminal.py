"""Files of ids are read as text, and what the commands show is shown as it is."""

import pandas as pd
import pytest
from rich.console import Console

from tests.claims.rows import checker_of, item
from thinkrec.answers.explanation import Explanation, claims_table
from thinkrec.claims.claims import Thesaurus
from thinkrec.errors import UserError
from thinkrec.shown import ShownRow
from thinkrec.terminal import explanation_table, read_history, read_ids, recommendations_table, write_scores


def shown(what):
    """The lines of a table on a wide terminal without colours."""
    console = Console(width=160)
    with console.capture() as capture:
        console.print(what)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def explained(reason):
    target = item("Low [red]Tide", "sea")
    history = [item("Iron Harbour", "war", liked=True), item("Night", "1990s", "conflict", liked=True)]
    row = ShownRow(history=history, target=target)
    thesaurus = Thesaurus("hand", lambda word: "war" if word == "conflict" else word)
    evidence = claims_table(checker_of(row, ["Seven Keys"], ["heist"], thesaurus).check(0, reason).claims)
    return Explanation(
        item_id="7",
        title=target.title,
        keywords=["sea"],
        probability=0.875,
        weights={"global": 0.25, "expert_1": 0.75},
        history=pd.DataFrame({"item_id": ["1", "2"], "title": ["Iron Harbour", "Night"], "liked": [True, False]}),
        reason=reason,
        evidence=evidence,
        thesaurus=thesaurus.name,
    )


def test_ids_stay_as_they_are_written(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("user_id,item_id\n007,NA\n1e3,null\n", encoding="utf-8-sig")
    frame = read_ids(path, ("user_id", "item_id"))
    assert frame.to_numpy().tolist() == [["007", "NA"], ["1e3", "null"]]
    write_scores(tmp_path / "out.csv", frame.assign(probability=[0.5, 1 / 3]))
    written = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert written == "user_id,item_id,probability\n007,NA,0.500000\n1e3,null,0.333333\n"


def test_a_history_says_liked_in_any_usual_word(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("liked,item_id\nyes,1\nNO,2\n1,3\n0,4\nTrue,5\n false ,6\n", encoding="utf-8")
    assert read_history(path) == [("1", True), ("2", False), ("3", True), ("4", False), ("5", True), ("6", False)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id\n1,2\n7,9,10\n", "line 3: 3 fields, but the first line names 2 columns"),
        ("user_id,item_id,note\n1,2\n", "line 2: 2 fields, but the first line names 3 columns"),
        ("user_id,item_id\n1,2,\n", "line 2: 3 fields"),
        ("user_id,item_id,user_id\n1,2,3\n", "two columns user_id"),
        ("user_id;item_id\n1;2\n", "no column user_id; its first line should name user_id, item_id, separated by"),
        ('user_id,item_id\n"1,2\n', "not readable as CSV"),
        ("", "no column user_id"),
    ],
)
def test_a_line_that_could_be_another_pair_is_refused(text, message, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_ids(path, ("user_id", "item_id"))


def test_a_history_may_name_titles(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('title,liked\n"Harbour, The",yes\n', encoding="utf-8")
    assert read_history(path) == [("Harbour, The", True)]
    path.write_text("name,liked\n1,yes\n", encoding="utf-8")
    with pytest.raises(
        UserError, match="no column item_id or title; its first line should name item_id or title, liked"
    ):
        read_history(path)


def test_on_a_terminal_names_are_folded_and_never_cut():
    name = "unabbreviated" * 3
    explanation = explained("Yes. Liked war (2 of 2). Avoids heist.")
    evidence, history = explanation.evidence.assign(name=name, of=name), explanation.history.assign(title=name)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(explanation_table(explanation.model_copy(update={"evidence": evidence, "history": history})))
    assert max(map(len, capture.get().splitlines())) <= 80 and "\u2026" not in capture.get()
    shown = "".join(part for line in capture.get().splitlines() for part in line.split())
    assert f"liked:{name}" in shown


def test_a_history_that_says_neither_yes_nor_no_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("item_id,liked\n7,perhaps\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine.csv: item 7: liked should be yes or no \(it is 'perhaps'\)"):
        read_history(path)


def test_recommendations_are_numbered_and_titles_are_no_markup():
    found = pd.DataFrame({"item_id": ["7", "8"], "title": ["Low [red]Tide", "Night"], "probability": [0.876, 0.5]})
    lines = shown(recommendations_table(found))
    assert "1 Low [red]Tide 7 87.6%" in lines
    assert "2 Night 8 50.0%" in lines


def test_an_explanation_shows_the_figures_the_reason_and_what_is_there():
    reason = (
        "Yes. Liked war (2 of 2), 1990s (1 of 1), conflict (1 of 1). One such title is Iron Harbour, not Seven Keys. "
        "Liked war in Iron Harbour. Avoids heist. This one has war."
    )
    lines = shown(explanation_table(explained(reason)))
    assert "item Low [red]Tide (7)" in lines
    assert "would like 87.5%" in lines
    assert "experts global 25%, expert_1 75%" in lines
    assert "history liked: Iron Harbour" in lines and "disliked: Night" in lines
    assert reason in " ".join(lines)
    assert "keyword war \u2248 conflict: liked (2 of 2) liked 2 by meaning" in lines
    assert any(line.endswith("true by meaning alone, by hand") for line in lines)
    assert "keyword 1990s: liked (1 of 1) liked 1 a name, no taste" in lines
    assert "keyword conflict: liked (1 of 1) liked 1 too few titles" in lines
    assert "keyword war: liked (Iron Harbour) liked 1 yes" in lines
    assert "item Iron Harbour: liked liked 1 yes" in lines
    assert "item Seven Keys nowhere not shown" in lines
    assert "keyword heist: avoided nowhere not shown" in lines
    assert "keyword war: in the target liked 1 no" in lines


def test_a_reason_that_claims_nothing_says_so():
    assert any("claims nothing of any title" in line for line in shown(explanation_table(explained("Yes, yes."))))
