"""The report: nothing in it can run, load or name where it was made, its size is bounded, and claims are marked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.claims.rows import LITERAL
from tests.project import call
from tests.report_artefacts import HOSTILE, REASON, SETTINGS, TITLES, make_artefacts, prompt
from thinkrec.evaluation.faithfulness import compare_sides
from thinkrec.evaluation.reasons import _name_reason, _score_checks, score_reasons
from thinkrec.report import users
from thinkrec.report.accuracy import axis, headline
from thinkrec.report.artefacts import Artefacts
from thinkrec.report.background import provenance
from thinkrec.report.contents import contents, sections
from thinkrec.report.measures import CLAIMS, INTERVENTIONS, TEXTS, TRUTH, leaves, reason_measures
from thinkrec.report.page import LARGEST, page
from thinkrec.report.users import encode_json, mark_claims

AUTHOR = ("-c", "user.name=A. Tester", "-c", "user.email=tester@example.org")


def contents_of(artefacts: Artefacts | None = None, **options: Any) -> dict[str, Any]:
    return contents(artefacts or make_artefacts(), prompt(), LITERAL, **options)


def page_of(artefacts: Artefacts, **settings: str) -> str:
    return page(contents_of(artefacts), sections(artefacts, SETTINGS | settings))


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
    odd = "é <!--&amp; {{ style }}"
    artefacts = make_artefacts(titles=[HOSTILE, odd, *TITLES[2:]], reason=f"Yes. The user liked {HOSTILE}.")
    value = contents_of(artefacts)
    text = page_of(artefacts, dataset=HOSTILE)
    assert text.count("</script>") == 2  # the data's and the script's
    assert "<img" not in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data.isascii() and not set("<>&") & set(data) and encode_json("\u2028\ud800").isascii()
    assert json.loads(data) == json.loads(json.dumps(value))
    assert {HOSTILE, odd} <= {item[0] for item in value["items"]}


def test_the_page_names_no_address_but_the_namespace_of_svg_and_its_policy_admits_its_own_code_alone() -> None:
    text, again = (page_of(make_artefacts()) for _ in range(2))
    assert text == again  # the same artefacts make the same bytes
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


def test_lists_of_a_full_ranking_stand_with_their_user_and_the_stage_has_none() -> None:
    value = contents_of(lists={1: {"popularity": [(4, 1), (0, None)]}})
    lists = {user["id"]: user["lists"] for user in value["users"]}
    titles = [(value["items"][item][0], label) for item, label in lists["u1"]["popularity"]]
    assert titles == [("Last Harbor", 1), ("Quiet River", None)]
    assert lists["u0"] == lists["u2"] == {} and 'id="ranking"' not in page_of(make_artefacts())


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
    value = contents(artefacts, prompt(history=10), LITERAL)
    assert 0 < len(value["users"]) < 4000
    assert LARGEST * 0.8 < len(page(value, sections(artefacts, SETTINGS)).encode()) <= LARGEST


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


def lead(difference: float, low: float, high: float) -> dict[str, float]:
    return {"difference": difference, "low": low, "high": high}


def table_of(leads: dict[str, dict[str, float]], **values: float) -> dict[str, Any]:
    """A split's table of ThinkRec and others: their AUC, and ThinkRec's leads; of UAUC the same."""
    models = {name: {"all": {"rows": 10, "auc": value, "uauc": value}} for name, value in values.items()}
    return {"models": models, "differences": {name: {"auc": each, "uauc": each} for name, each in leads.items()}}


@pytest.mark.parametrize(
    ("edges", "says"), [((0.01, 0.03), "ahead of"), ((-0.01, 0.05), "level with"), ((-0.03, -0.01), "behind")]
)
def test_the_sentence_says_who_is_ahead_of_whom_also_where_thinkrec_loses(
    edges: tuple[float, float], says: str
) -> None:
    test = table_of({"sasrec": lead(0.02, *edges), "mf": lead(0.5, 0.4, 0.6)}, thinkrec=0.8, sasrec=0.78, mf=0.3)
    difference, low, high = (f"{value:+.4f}".replace("-", "−") for value in (0.02, *edges))
    assert headline(test).startswith(
        f"On 10 test interactions ThinkRec is {says} SASRec, the best of 2 other models by AUC "
        f"({difference}, 95 % interval {low} to {high}), and {says} SASRec"
    )


def test_what_knows_the_labels_or_is_thinkrec_itself_is_nobody_to_be_ahead_of() -> None:
    alone = table_of({}, thinkrec=0.8, thinkrec_global=0.9, best=0.95, sasrec_static=0.9)
    assert "nothing that it could be compared with" in headline(alone)
    assert headline(None) == "There are no test interactions, so nothing was compared."


def test_the_axis_of_a_forest_plot_holds_the_line_and_the_nearer_half_of_the_leads() -> None:
    low, high = axis([lead(0.01, -0.01, 0.02), lead(-0.02, -0.03, -0.01), lead(0.3, 0.2, 0.4)])
    assert -0.04 < low < -0.03 and 0.02 < high < 0.03
    low, high = axis([lead(0.3, 0.2, 0.4)])
    assert low < 0 and high > 0.4


def test_new_items_are_counted_and_have_leads_where_they_are_measured() -> None:
    few, many = (page_of(make_artefacts(users=users)) for users in (3, 40))
    assert "6 test rows are about items that train never saw: too few" in few and "UAUC, new items" not in few
    assert "80 test rows are about items that train never saw." in many and "Leads by UAUC, new items" in many


def test_every_measure_of_the_reasons_has_a_name_and_a_line_that_says_what_it_is() -> None:
    frame = pd.DataFrame({"row": [0], "label": [1], "probability": [0.5], "reason": ["Yes."], "teacher": ["Yes."]})
    assert set(score_reasons(frame)) <= set(TEXTS)
    assert {name for name, _ in leaves(_score_checks([]))} == set(CLAIMS)
    assert {"changed", *compare_sides(np.zeros(1), np.zeros(1), np.zeros(1), seed=0)} == set(INTERVENTIONS)
    assert {*_name_reason("", "", []), "reasons", "lead.value", "lead.low", "lead.high"} == set(TRUTH)
    texts, claims, odd = reason_measures(
        {"rows": 1, "claims": {"ours": {"claims": 3}, "teacher": {"claims": 4}}, "new": {"odd": 5}}
    )
    assert (texts["heads"], texts["rows"]) == (["value"], [(*TEXTS["rows"], ["1"])])
    assert (claims["heads"], claims["rows"]) == (["ThinkRec", "teacher"], [(*CLAIMS["claims"], ["3", "4"])])
    assert (odd["title"], odd["heads"], odd["rows"]) == ("new", ["value"], [("odd", "", ["5"])])


def test_what_was_run_names_the_commit_and_the_parameters_that_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = "seed: 7\nexperts: {n: 3}\nrun: {processes: 1}\n"
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {report: {deps: [code.py, out/ingest]}}\n", encoding="utf-8")
    (tmp_path / "code.py").write_text("1\n", encoding="utf-8")
    call(tmp_path, "git", "init", "--quiet")
    assert provenance(SETTINGS)["code"] == "not in a git repository with a commit"

    def commit(message: str) -> None:
        call(tmp_path, "git", "add", "--all")
        call(tmp_path, "git", *AUTHOR, "commit", "--quiet", "--message", message)

    commit("Start")
    first = call(tmp_path, "git", "log", "-1", "--format=%h of %cs").strip()
    (tmp_path / "results.md").write_text("later\n", encoding="utf-8")
    commit("Results, no code")
    run = provenance(SETTINGS)
    assert (run["code"], run["parameters"]) == (first, "as committed in params.yaml")
    (tmp_path / "params.yaml").write_text(params.replace("3", "0").replace("processes: 1", "processes: 2"))
    (tmp_path / "code.py").write_text("2\n", encoding="utf-8")
    run = provenance(SETTINGS)
    assert run["code"] == f"{first}, and changes that are not committed"
    assert run["parameters"] == "experts.n: 0 (committed: 3)"
