"""The report: nothing in it can run, load or name where it was made, its size is bounded, and claims are marked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tests.claims.rows import LITERAL
from tests.report_artefacts import HOSTILE, REASON, SETTINGS, TITLES, make_artefacts, prompt
from thinkrec.report import users
from thinkrec.report.artefacts import Artefacts
from thinkrec.report.contents import contents
from thinkrec.report.page import LARGEST, page
from thinkrec.report.users import encode_json, mark_claims


def contents_of(artefacts: Artefacts | None = None, **options: Any) -> dict[str, Any]:
    return contents(artefacts or make_artefacts(), SETTINGS, prompt(), LITERAL, **options)


def explained_target(value: dict[str, Any]) -> dict[str, Any]:
    """The only target with a reason."""
    (target,) = [target for user in value["users"] for target in user["targets"] if "text" in target]
    return dict(target)


def marked_pieces(reason: str) -> list[tuple[str, dict[str, Any]]]:
    """The pieces of a reason that make a claim, and the claim; the pieces add up to the reason."""
    target = explained_target(contents_of(make_artefacts(reason=reason)))
    assert "".join(piece for piece, _ in target["text"]) == reason
    return [(piece, target["claims"][claim]) for piece, claim in target["text"] if claim >= 0]


def test_what_strangers_wrote_stands_in_the_data_only_and_nothing_in_it_is_markup() -> None:
    artefacts = make_artefacts(titles=[HOSTILE, *TITLES[1:]], reason=f"Yes. The user liked {HOSTILE}. $style $policy")
    value = contents(artefacts, {**SETTINGS, "dataset": HOSTILE}, prompt(), LITERAL)
    text = page(value)
    assert text.count("</script>") == 2  # the data's and the script's
    assert "<img" not in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["items"][0][0] == value["items"][0][0] == HOSTILE
    assert "$style $policy" in text


def test_encoded_json_is_ascii_without_html_and_reads_back() -> None:
    value = {"<!--": "<script>&amp;\u2028é\ud800"}
    text = encode_json(value)
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == value


def test_the_page_names_no_address_but_the_namespace_of_svg_and_its_policy_admits_its_own_code_alone() -> None:
    text = page(contents_of())
    assert text == page(contents_of())  # the same artefacts make the same bytes
    assert set(re.findall(r"\w+://[^\s\"']*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(?:src|srcset|url|import|innerHTML|outerHTML|insertAdjacentHTML|eval)\s*[=(]", text)
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules.pop(kind))
    assert rules == dict.fromkeys(["default-src", "base-uri", "form-action"], "'none'")


def test_users_come_as_many_as_fit_those_with_reasons_first() -> None:
    whole, some = contents_of(make_artefacts(users=40)), contents_of(make_artefacts(users=40), limit=4000)
    assert whole["included"] == {"users": [40, 40], "rows": [80, 80], "reasons": [1, 1]}
    assert [user["id"] for user in whole["users"][:3]] == ["u1", "u0", "u2"]
    assert 1 < len(some["users"]) < 40
    assert some["users"] == whole["users"][: len(some["users"])]
    assert some["included"]["users"] == [len(some["users"]), 40]
    assert len(encode_json([some["users"], some["items"]])) <= 4000 + len(some["users"]) + 20  # and commas


def test_of_one_user_the_best_ranked_are_shown_and_the_reason_whatever_its_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(users, "MOST_TARGETS", 4)
    (user,) = [user for user in contents_of(make_artefacts(rows=29))["users"] if user["id"] == "u1"]
    ranks = [target["rank"] for target in user["targets"]]
    assert user["rows"] == 26 and len(ranks) == 4
    assert ranks == sorted(ranks) and ranks[:3] == [1, 2, 3]
    assert any("text" in target for target in user["targets"])


@pytest.mark.parametrize("char", ["<", "é", "字"])
def test_a_page_as_full_as_it_may_be_is_below_the_limit(char: str) -> None:
    artefacts = make_artefacts(users=4000, rows=30, titles=[char * 190 + str(n) for n in range(5)])
    value = contents(artefacts, SETTINGS, prompt(history=10), LITERAL)
    assert 0 < len(value["users"]) < 4000
    assert LARGEST * 0.8 < len(page(value).encode()) <= LARGEST


def test_each_claim_is_marked_as_it_stands() -> None:
    pieces = {piece: claim["is"] for piece, claim in marked_pieces(REASON)}
    assert (pieces["Purple Rain"], pieces["Night Train"]) == ("ungrounded", "true")
    stands = {claim["says"]: claim["is"] for claim in explained_target(contents_of())["claims"]}
    assert stands["liked slow (2 of 2)"] == "untrue"  # of the three shown, one is slow
    assert stands["disliked Night Train"] == stands["the target has slow"] == "true"
    assert stands["liked Purple Rain"] == "ungrounded"


def test_evidence_points_at_what_the_history_showed() -> None:
    value = contents_of()
    (user,) = [user for user in value["users"] if user["id"] == "u1"]
    target = explained_target(value)
    history = user["timeline"][slice(*target["history"])]
    assert [value["items"][item][0] for item, _ in history] == TITLES[1:4]
    places = {claim["says"]: claim["places"] for claim in target["claims"]}
    assert places["disliked Night Train"] == [2]
    assert places["the target has slow"] == []  # that rests on the target, not on the history


def test_names_are_found_in_their_order_whatever_their_case_and_counts_of_all_titles_wherever_they_stand() -> None:
    pieces = marked_pieces("Yes. Liked SLOW. The target has slow.")
    assert [piece for piece, _ in pieces] == ["SLOW", "slow"]
    pieces = marked_pieces(
        "Yes. 2 of 3 titles were liked. Liked slow (2 of 3). The target has slow; 1 of 3 was disliked."
    )
    assert [(piece, claim["says"]) for piece, claim in pieces] == [
        ("2 of 3", "liked titles (2 of 3)"),
        ("slow (2 of 3)", "liked slow (2 of 3)"),
        ("slow", "the target has slow"),
        ("1 of 3", "disliked titles (1 of 3)"),
    ]
    assert (mark_claims("Yes.", []), mark_claims("", [])) == ([("Yes.", -1)], [])


def test_a_target_has_its_probability_weights_rank_and_the_worlds_truth() -> None:
    target = explained_target(contents_of())
    assert (target["p"], target["rank"], target["label"], target["weights"]) == (0.8, 1, 1, [0.25, 0.75])
    assert (target["true_p"], target["true_reason"]) == (0.75, "theme:sea")
    assert target["verdict"] is target["agrees"] is True
    real = replace(make_artefacts(), truth=pd.DataFrame({"probability": [], "reason": []}))  # nobody knows the truth
    assert "true_p" not in explained_target(contents_of(real))


def test_new_items_are_counted_and_have_a_table_where_they_are_measured() -> None:
    few, of_new = (contents_of(make_artefacts(users=users))["tables"]["test"]["new_items"] for users in (3, 40))
    assert few == {"rows": 6, "table": None}
    assert of_new["rows"] == of_new["table"]["rows"] == 80
    assert of_new["table"]["headline"] == ["auc", "uauc"]
    assert {model["name"]: model["values"]["auc"] for model in of_new["table"]["models"]} == {
        "thinkrec": 1,
        "mf": 0.5,
        "best": 0.5,
    }
    assert set(of_new["table"]["differences"]["mf"]) == {"auc", "uauc"}


def test_metrics_of_the_reasons_become_tables_whatever_their_depth() -> None:
    written = {
        "a_b": 1,
        "claims": {"ours": {"c": None, "d": {"low": 0.123456}}, "teacher": {"c": 2}},
        "curve": {"note": "not computed", "points": [{"x": 1}, {"x": 2}]},
        "off": {},
    }
    single, claims, curve = contents_of(replace(make_artefacts(), written=written))["written"]
    assert (single["title"], claims["title"], curve["title"]) == ("", "claims", "curve")
    assert single["rows"] == [["a b", 1]]
    assert claims["columns"] == ["ours", "teacher"]
    assert claims["rows"] == [["c", None, 2], ["d, low", 0.1235, None]]
    assert curve["rows"] == [["note", "not computed"], ["points, 1, x", 1], ["points, 2, x", 2]]
