"""`thinkrec rank` on a finished project."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.project import copy_project, run_command
from thinkrec import artifacts
from thinkrec.evaluation.intervals import holm
from thinkrec.features.models import MODELS
from thinkrec.ranking.expected import KS, METRICS
from thinkrec.ranking.page import render
from thinkrec.recommender import Recommender


@pytest.fixture(scope="module")
def ranked(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the command answers to programs, and the report that it writes."""
    project = copy_project(finished, tmp_path_factory.mktemp("rank") / "project")
    result = run_command(project, "rank", "--shortlist", "60", "--users", "12", "--page", "page.html", "--json")
    assert result.exit_code == 0, result.output
    assert "rank: 12 of " in result.stderr
    return json.loads(result.stdout), (project / "page.html").read_text(encoding="utf-8")


def test_a_question_as_of_a_row_scores_it_as_the_evaluation_did(recommender: Recommender, finished: Path) -> None:
    predictions = artifacts.read_table(artifacts.PREDICTIONS, root=finished)
    test = predictions[predictions["split"] == "test"]
    first = test.drop_duplicates("user")
    assert (first["group"] < 0).any() and (first["group"] >= 0).any()
    asked = [
        recommender.viewer.question_before(int(row.row), np.asarray([int(row.item)])) for row in first.itertuples()
    ]
    np.testing.assert_allclose(recommender.viewer.probabilities(asked), first["thinkrec"], atol=1e-5)


class TestDocument:
    def test_every_model_has_every_figure_and_a_lead(self, ranked: tuple[dict[str, Any], str]) -> None:
        document = ranked[0]
        assert {*MODELS, "thinkrec", "popular", "item_knn", "ease", "union", "chance"} <= {*document["models"]}
        assert document["models"]["thinkrec_popular"]["metrics"] != document["models"]["popular"]["metrics"]
        assert {*document["differences"]} == {*document["models"]} - {"thinkrec"}
        for entry in document["models"].values():
            assert list(entry["metrics"]) == METRICS
            for name, edges in entry["interval"].items():
                assert edges["low"] <= entry["metrics"][name] + 1e-9 and entry["metrics"][name] <= edges["high"] + 1e-9
            for name in ("hr", "recall", "mrr"):
                of_k = [entry["metrics"][f"{name}@{k}"] for k in KS]
                assert of_k == sorted(of_k)

    def test_a_lead_is_the_difference_of_the_figures(self, ranked: tuple[dict[str, Any], str]) -> None:
        document = ranked[0]
        for name, leads in document["differences"].items():
            for metric, lead in leads.items():
                ours, theirs = (document["models"][model]["metrics"][metric] for model in ("thinkrec", name))
                assert lead["difference"] == pytest.approx(ours - theirs, abs=2e-4)  # of rounded ones

    def test_the_best_order_of_a_shortlist_bounds_every_other(self, ranked: tuple[dict[str, Any], str]) -> None:
        stages = ranked[0]["stages"]
        for by_size in stages.values():
            assert list(by_size) == ["50", "60"]
            assert by_size["50"]["recall"] <= by_size["60"]["recall"]
            for entry in by_size.values():
                assert (
                    max(entry[order] for order in ("retriever", "thinkrec", "thinkrec_popular")) <= entry["best"] + 1e-9
                )
        gains = [gain for by_size in stages.values() for entry in by_size.values() for gain in entry["gain"].values()]
        adjusted = pytest.approx(holm([gain["p"] for gain in gains]), abs=1e-4 * len(gains))
        assert [gain["p_holm"] for gain in gains] == adjusted

    def test_what_ranks_first_of_a_shortlist_is_the_retrievers_own(self, ranked: tuple[dict[str, Any], str]) -> None:
        document = ranked[0]
        for name, by_size in document["stages"].items():
            if name not in ("chance", "popular", "popular_month"):  # whose ties a shortlist decides
                figure = document["models"][name]["metrics"]["ndcg@10"]
                assert by_size["50"]["retriever"] == pytest.approx(figure, abs=0.02)
        last = document["stages"][document["feature_model"]]["60"]
        assert last["thinkrec"] == document["models"]["thinkrec"]["metrics"]["ndcg@10"]

    def test_the_page_says_all_of_it(self, ranked: tuple[dict[str, Any], str]) -> None:
        document = ranked[0]
        page = render([document])
        assert "`thinkrec rank --protocol temporal --split test --shortlist 60 --users 12` measured this" in page
        rows = [line for line in page.splitlines() if line.startswith("| popularity |")]
        assert len(rows) == 7 + len(document["stages"]["popular"])  # figures, leads, four metrics by length, lists

    def test_the_report_has_a_headline_and_of_each_user_asked_about_lists_of_what_was_not_rated_before(
        self, ranked: tuple[dict[str, Any], str], finished: Path
    ) -> None:
        document, page = ranked
        assert re.search(r'<th scope="row">popularity</th><td>[.\d]+ \[', page)
        (text,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
        data = json.loads(text)
        table = artifacts.read_table(artifacts.INTERACTIONS, root=finished)
        ids = artifacts.read_table(artifacts.USERS, root=finished)["user_id"]
        item_ids = artifacts.read_table(artifacts.ITEMS, root=finished)["item_id"]
        listed = [user for user in data["users"] if user["lists"]]
        assert len(listed) == document["users"]["ranked"]
        for user in listed:
            rows = table[table["user"] == int(np.flatnonzero(ids == user["id"])[0])]
            test = rows[rows["split"] == "test"]
            later = dict(zip(item_ids[test["item"]], test["label"], strict=True))
            before = {*item_ids[rows.loc[rows["timestamp"] < test["timestamp"].min(), "item"]]}
            assert {"ThinkRec", "popularity"} < {*user["lists"]}
            for pairs in user["lists"].values():
                of_list = {data["items"][item][3]: label for item, label in pairs}
                assert len(of_list) == 10 and not before & {*of_list}
                assert of_list == {item: later.get(item) for item in of_list}


def test_leave_last_out_warns_that_it_leaks(project: Path) -> None:
    options = ("--shortlist", "50", "--users", "3", "--page", "page.md")
    result = run_command(project, "rank", "--protocol", "leave-last-out", *options)
    assert result.exit_code == 0, result.output
    assert "rank: leave-last-out leaks time" in result.stderr
    assert "leave-last-out leaks time" in (project / "page.md").read_text(encoding="utf-8")
    lines = result.stdout.splitlines()
    assert any("popularity, last 30 days" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_split_with_nobody_to_ask_about_is_one_line(project: Path) -> None:
    table = artifacts.read_table(artifacts.INTERACTIONS, root=project)
    disliked = table.assign(label=table["label"].where(table["split"] != "test", 0).astype("int8"))
    artifacts.write_table(artifacts.INTERACTIONS, disliked, root=project)
    result = run_command(project, "rank")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "no user to ask about" in result.stderr
