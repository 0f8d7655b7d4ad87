"""The report: nothing in it can run, load or name where it was made, its size is bounded, and claims are marked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tests.report_made import HOSTILE, REASON, SETTINGS, TITLES, made, prompt
from thinkrec.report import users as report
from thinkrec.report.contents import contents
from thinkrec.report.page import LARGEST, page
from thinkrec.report.users import encode_json, mark_claims


def shown(**changes: Any) -> dict[str, Any]:
    return contents(made(**changes), SETTINGS, prompt(), str)


def data_of(text: str) -> Any:
    """The data block of a page, read back."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def target_with_reason(found: dict[str, Any]) -> dict[str, Any]:
    (target,) = [target for user in found["users"] for target in user["targets"] if "text" in target]
    return dict(target)


class TestSafety:
    def test_what_strangers_wrote_stands_in_the_data_only_and_nothing_in_it_is_markup(self) -> None:
        found = shown(titles=[HOSTILE, *TITLES[1:]], reason=f"Yes. The user liked {HOSTILE}. $style $policy")
        text = page(found)
        assert text.count("</script>") == 2  # the data's and the script's
        assert "<img" not in text
        assert data_of(text)["items"][0][0] == found["items"][0][0] == HOSTILE
        assert "$style $policy" in text

    def test_encoded_json_is_ascii_without_html_and_reads_back(self) -> None:
        value = {"<!--": "<script>&amp;\u2028é\ud800"}
        text = encode_json(value)
        assert text.isascii()
        assert not set("<>&") & set(text)
        assert json.loads(text) == value

    def test_a_dataset_by_a_hostile_name_is_text(self) -> None:
        text = page(contents(made(), {**SETTINGS, "dataset": HOSTILE}, prompt(), str))
        assert text.count("</script>") == 2
        assert "<img" not in text

    def test_the_page_names_no_address_but_the_namespace_of_svg(self) -> None:
        assert set(re.findall(r"\w+://[^\s\"']*", page(shown()))) == {"http://www.w3.org/2000/svg"}
        assert not re.search(
            r"\b(?:src|srcset|url|import|innerHTML|outerHTML|insertAdjacentHTML|eval)\s*[=(]", page(shown())
        )

    def test_the_policy_admits_this_script_and_this_style_alone(self) -> None:
        (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page(shown()))
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
        for kind in ("script-src", "style-src"):
            assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules[kind])
        assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}


def test_the_same_artefacts_make_the_same_bytes() -> None:
    assert page(shown()) == page(shown())


class TestSize:
    def test_users_come_as_many_as_fit_those_with_reasons_first(self) -> None:
        some = made(users=40)
        whole = contents(some, SETTINGS, prompt(), str)
        assert whole["included"] == {"users": [40, 40], "rows": [80, 80], "reasons": [1, 1]}
        assert [user["id"] for user in whole["users"][:3]] == ["u1", "u0", "u2"]
        few = contents(some, SETTINGS, prompt(), str, limit=4000)
        assert 1 < len(few["users"]) < 40
        assert few["users"] == whole["users"][: len(few["users"])]
        assert few["included"]["users"] == [len(few["users"]), 40]
        assert len(encode_json([few["users"], few["items"]])) <= 4000 + len(few["users"]) + 20  # and commas

    def test_of_one_user_the_best_ranked_are_shown_and_the_reason_whatever_its_rank(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(report, "MOST_TARGETS", 4)
        (user,) = [user for user in shown(rows=29)["users"] if user["id"] == "u1"]
        assert user["rows"] == 26
        assert len(user["targets"]) == 4
        ranks = [target["rank"] for target in user["targets"]]
        assert ranks == sorted(ranks)
        assert ranks[:3] == [1, 2, 3]
        assert "text" in user["targets"][3] or any("text" in target for target in user["targets"][:3])

    @pytest.mark.parametrize("char", ["<", "é", "字"])
    def test_a_page_as_full_as_it_may_be_is_below_the_limit(self, char: str) -> None:
        some = made(users=4000, rows=30, titles=[char * 190 + str(n) for n in range(5)])
        found = contents(some, SETTINGS, prompt(history=10), str)
        assert 0 < len(found["users"]) < 4000
        assert LARGEST * 0.8 < len(page(found).encode()) <= LARGEST


class TestReasons:
    def test_each_claim_is_marked_as_it_stands(self) -> None:
        target = target_with_reason(shown())
        assert "".join(piece for piece, _ in target["text"]) == REASON
        standing = {claim["says"]: claim["is"] for claim in target["claims"]}
        assert standing["liked slow (2 of 2)"] == "untrue"  # of the three shown, one is slow
        assert standing["disliked Night Train"] == "true"
        assert standing["liked Purple Rain"] == "ungrounded"
        assert standing["the target has slow"] == "true"
        pieces = {piece: target["claims"][claim]["is"] for piece, claim in target["text"] if claim >= 0}
        assert pieces["Purple Rain"] == "ungrounded"
        assert pieces["Night Train"] == "true"

    def test_evidence_points_at_what_the_history_showed(self) -> None:
        found = shown()
        (user,) = [user for user in found["users"] if user["id"] == "u1"]
        target = target_with_reason(found)
        history = user["timeline"][slice(*target["history"])]
        assert [found["items"][item][0] for item, _ in history] == TITLES[1:4]
        cited = {claim["says"]: claim["places"] for claim in target["claims"]}
        assert cited["disliked Night Train"] == [2]
        assert cited["the target has slow"] == []  # that rests on the target, not on the history

    def test_names_are_found_in_their_order_and_case_does_not_matter(self) -> None:
        target = target_with_reason(shown(reason="Yes. Liked SLOW. The target has slow."))
        assert [piece for piece, claim in target["text"] if claim >= 0] == ["SLOW", "slow"]

    def test_a_count_of_all_titles_is_marked_wherever_it_stands(self) -> None:
        text = "Yes. 2 of 3 titles were liked. Liked slow (2 of 3). The target has slow; 1 of 3 was disliked."
        target = target_with_reason(shown(reason=text))
        assert "".join(piece for piece, _ in target["text"]) == text
        assert [(piece, target["claims"][claim]["says"]) for piece, claim in target["text"] if claim >= 0] == [
            ("2 of 3", "liked titles (2 of 3)"),
            ("slow (2 of 3)", "liked slow (2 of 3)"),
            ("slow", "the target has slow"),
            ("1 of 3", "disliked titles (1 of 3)"),
        ]

    def test_text_without_claims_is_one_piece(self) -> None:
        assert mark_claims("Yes.", []) == [("Yes.", -1)]
        assert mark_claims("", []) == []


def test_a_target_has_its_probability_weights_rank_and_the_worlds_truth() -> None:
    target = target_with_reason(shown())
    assert (target["p"], target["rank"], target["label"], target["weights"]) == (0.8, 1, 1, [0.25, 0.75])
    assert (target["true_p"], target["true_reason"]) == (0.75, "theme:sea")
    assert target["verdict"] is target["agrees"] is True


def test_real_data_has_no_truth_to_show() -> None:
    some = replace(made(), truth=pd.DataFrame({"probability": [], "reason": []}))
    assert "true_p" not in target_with_reason(contents(some, SETTINGS, prompt(), str))


def test_metrics_of_the_reasons_become_tables_whatever_their_depth() -> None:
    written = {
        "a_b": 1,
        "claims": {"ours": {"c": None, "d": {"low": 0.123456}}, "teacher": {"c": 2}},
        "curve": {"note": "not computed", "points": [{"x": 1}, {"x": 2}]},
        "off": {},
    }
    found = contents(replace(made(), written=written), SETTINGS, prompt(), str)["written"]
    assert [table["title"] for table in found] == ["", "claims", "curve"]
    assert found[0]["rows"] == [["a b", 1]]
    assert found[1]["columns"] == ["ours", "teacher"]
    assert found[1]["rows"] == [["c", None, 2], ["d, low", 0.1235, None]]
    assert found[2]["rows"] == [["note", "not computed"], ["points, 1, x", 1], ["points, 2, x", 2]]
