"""The API over a finished project: as the evaluation scored, for anybody, and for many candidates at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.project import LIKED_AND_NOT, copy_project, run_stage, scores_of
from thinkrec import artifacts
from thinkrec.answers.explanation import Explanation
from thinkrec.artifacts import (
    FEATURE_MODEL,
    FEATURES,
    INTERACTIONS,
    ITEMS,
    KEYWORDS,
    PREDICTIONS,
    REASONS,
    read_table,
    read_tensors,
)
from thinkrec.errors import UserError
from thinkrec.experts.weights import ROUTING_FILE
from thinkrec.features.artefact import load_features, save_features
from thinkrec.features.statistics import causal_statistics
from thinkrec.lm.model import TextMatch
from thinkrec.recommender import Recommender


@pytest.fixture(scope="module")
def table(finished: Path) -> pd.DataFrame:
    return read_table(INTERACTIONS, root=finished)


def user_id(number: int) -> str:
    return f"u{number:05d}"


def item_id(number: int) -> str:
    return f"i{number:05d}"


def pairs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the interactions table by the dataset's own ids."""
    return pd.DataFrame({"user_id": rows["user"].map(user_id), "item_id": rows["item"].map(item_id)})


def cut(source: Path, to: Path, moment: int) -> Path:
    """The project as it was before a moment: later interactions, and what is known of each, are not there."""
    folder = copy_project(source, to)
    table = read_table(INTERACTIONS, root=folder)
    earlier = (table["timestamp"] < moment).to_numpy()
    artifacts.write_table(INTERACTIONS, table[earlier], root=folder)
    by_row = ("item_row", "user_row", "state", "statistics")
    features = {}
    for protocol in ("online", "static"):
        whole = load_features(folder / FEATURES, protocol=protocol)
        features[protocol] = replace(whole, **{name: getattr(whole, name)[earlier] for name in by_row})
    save_features(features, folder / FEATURES)
    return folder


class TestAsTheEvaluationScored:
    @pytest.fixture
    def chosen(self, finished: Path, table: pd.DataFrame) -> pd.DataFrame:
        """Test rows of a user that train knows, of one that it does not, and of a moment that several rows share."""
        predictions = read_table(PREDICTIONS, root=finished)
        reasons = read_table(REASONS, root=finished)
        predictions = predictions.merge(table["timestamp"], left_on="row", right_index=True)
        predictions["reason"] = predictions["row"].map(reasons.set_index("row")["reason"])
        test = predictions[(predictions["split"] == "test") & (predictions["history"] > 0)]
        unknown, busiest = test[test["group"] < 0], test["timestamp"].value_counts().idxmax()
        explained = test[test["reason"].notna()]["timestamp"].iloc[:3]
        moments = {unknown["timestamp"].iloc[0], unknown["timestamp"].iloc[-1], busiest, *explained}
        return predictions[predictions["timestamp"].isin(moments) & (predictions["split"] == "test")]

    def test_a_history_cut_right_before_a_row_scores_that_row_alike(
        self, finished: Path, chosen: pd.DataFrame, tmp_path: Path
    ) -> None:
        assert (chosen["group"] < 0).any() and (chosen["group"] >= 0).any()
        assert chosen["timestamp"].value_counts().max() > 1
        explained = 0
        for moment, rows in chosen.groupby("timestamp"):
            recommender = Recommender.load(cut(finished, tmp_path / str(moment), int(moment)))
            np.testing.assert_allclose(recommender.score(pairs_of(rows)), rows["thinkrec"], atol=1e-5)
            for row in rows[rows["reason"].notna()].itertuples():
                explanation = recommender.explain(user_id(row.user), item_id(row.item))
                assert explanation.reason == row.reason
                assert explanation.probability == pytest.approx(row.thinkrec, abs=1e-5)
                explained += 1
        assert explained >= 3

    @pytest.mark.parametrize("kind", ["lightgcn", "sasrec", "gsasrec", "hybrid_mf", "hybrid_sasrec"])
    def test_whatever_the_feature_model_its_features_are_those_of_the_artefact(
        self, finished: Path, chosen: pd.DataFrame, tmp_path: Path, kind: str
    ) -> None:
        project = copy_project(finished, tmp_path / "project", {"features.model": kind, "features.epochs": 1})
        run_stage(project, "features")
        stored = load_features(project / FEATURES)
        moment, rows = next(iter(chosen[chosen["group"] < 0].groupby("timestamp")))
        recommender = Recommender.load(cut(project, tmp_path / "cut", int(moment)))
        for row in rows.itertuples():
            question = recommender.viewer.question_of(row.user, np.asarray([row.item]))
            features = recommender.viewer.view([question]).loaded.features
            for name in ("user_vectors_of", "item_vectors_of"):
                of_row = getattr(features, name)(np.asarray([-1]))
                np.testing.assert_allclose(of_row, getattr(stored, name)(np.asarray([row.row])), atol=1e-5)
            np.testing.assert_allclose(features.statistics[-1], stored.statistics[row.row], atol=1e-5)

    @pytest.mark.parametrize("history", [None, LIKED_AND_NOT])
    def test_statistics_are_those_of_the_whole_table_with_the_new_rows_in_it(
        self, recommender: Recommender, finished: Path, table: pd.DataFrame, history: list[tuple[str, bool]] | None
    ) -> None:
        candidates = np.asarray([3, 5, 7, 40, 79])  # some in the history by hand
        user = 5 if history is None else int(table["user"].max()) + 1
        question = recommender._question(user_id(user) if history is None else history)
        features = recommender.viewer.view([replace(question, candidates=candidates)]).loaded.features
        past = [] if history is None else [(int(item[1:]), int(liked)) for item, liked in history]
        now = int(table["timestamp"].max()) + 1
        added = pd.DataFrame(
            {
                "user": user,
                "item": [*(item for item, _ in past), *candidates],
                "label": [*(label for _, label in past), *np.zeros_like(candidates)],
                "timestamp": now + np.minimum(np.arange(len(past) + len(candidates)), len(past)),
            }
        )
        whole = pd.concat([table, added]).sort_values(["user", "timestamp"], kind="stable", ignore_index=True)
        expected, names = causal_statistics(whole, read_table(ITEMS, root=finished))
        rows = np.flatnonzero((whole["user"] == user).to_numpy())
        np.testing.assert_allclose(features.statistics[:, :-1], expected[rows], atol=1e-5)
        assert features.statistic_names == [*names, "affinity"]


class TestScores:
    def test_ranking_together_is_ranking_apart(self, recommender: Recommender, table: pd.DataFrame) -> None:
        for number in (0, int(table["user"].max())):
            every = pd.DataFrame({"user_id": user_id(number), "item_id": [item_id(item) for item in range(80)]})
            together = recommender.score(every)  # more than one sequence holds
            apart = [recommender.score(every.iloc[[place]])[0] for place in range(0, 80, 7)]
            np.testing.assert_allclose(together[::7], apart, atol=1e-4)
            assert together.std() > 1e-3

    @pytest.mark.parametrize("match", [False, True], ids=["no match", "match of texts"])
    def test_a_history_read_once_changes_nothing(
        self, recommender: Recommender, monkeypatch: pytest.MonkeyPatch, match: bool
    ) -> None:
        model = recommender._loaded.model
        if match:
            monkeypatch.setattr(model, "match", TextMatch(model.backbone.config.hidden_size, 4))
        by_pass, plainly = scores_of(recommender, [user_id(3), LIKED_AND_NOT, []])
        np.testing.assert_allclose(by_pass, plainly, atol=1e-5)
        assert plainly.std() > 1e-3

    def test_pairs_keep_their_order_whoever_else_is_asked_about(
        self, recommender: Recommender, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = pairs_of(table.sample(40, random_state=0)).reset_index(drop=True)
        whole = recommender.score(some)
        mixed = np.random.default_rng(0).permutation(len(some))
        np.testing.assert_allclose(recommender.score(some.iloc[mixed]), whole[mixed], atol=1e-5)
        monkeypatch.setattr("thinkrec.answers.views.VIEW_ROWS", 100)  # several views
        np.testing.assert_allclose(recommender.score(some), whole, atol=1e-5)
        assert len(recommender.score(some.iloc[:0])) == 0


def test_a_project_is_read_from_its_folder_wherever_the_process_is(
    finished: Path, recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("os.chdir", None)  # the working directory is the process's, not ours
        elsewhere = Recommender.load(finished)
    pairs = pd.DataFrame({"user_id": ["u00003"], "item_id": ["i00009"]})
    np.testing.assert_array_equal(elsewhere.score(pairs), recommender.score(pairs))
    assert not list(tmp_path.iterdir())


class TestRecommendations:
    @pytest.mark.parametrize("user", ["u00003", LIKED_AND_NOT, []], ids=["known", "never seen", "no history"])
    def test_the_most_probable_items_that_are_not_rated_yet(
        self, recommender: Recommender, finished: Path, table: pd.DataFrame, user: str | list[tuple[str, bool]]
    ) -> None:
        best = recommender.recommend(user, 5)
        assert list(best) == ["item_id", "title", "probability"]
        assert best["probability"].is_monotonic_decreasing and len(best) == 5
        items = read_table(ITEMS, root=finished).set_index("item_id")["title"]
        assert items[best["item_id"]].tolist() == best["title"].tolist()
        rated = (
            {item for item, _ in user}
            if isinstance(user, list)
            else set(pairs_of(table[table["user"] == 3])["item_id"])
        )
        every = recommender.recommend(user, 1000)
        assert set(every["item_id"]) == set(items.index) - rated
        pd.testing.assert_frame_equal(every.head(5), best)
        for row in best.itertuples():
            assert recommender.explain(user, row.item_id).probability == pytest.approx(row.probability, abs=1e-4)

    def test_the_feature_model_draws_up_the_shortlist(self, recommender: Recommender) -> None:
        (affinity,) = recommender.viewer.affinities([recommender._question(LIKED_AND_NOT)])
        rated = {int(item[1:]) for item, _ in LIKED_AND_NOT}
        best = [item_id(item) for item in np.argsort(-affinity) if item not in rated]
        every = recommender.recommend(LIKED_AND_NOT, 1000).set_index("item_id")["probability"]
        first = recommender.recommend(LIKED_AND_NOT, 3, shortlist=8)
        assert first["item_id"].tolist() == every[best[:8]].sort_values(ascending=False).index[:3].tolist()
        assert set(recommender.recommend(LIKED_AND_NOT, 4, shortlist=1)["item_id"]) == set(best[:4])

    def test_a_history_in_words_is_the_same_in_truth_values(self, recommender: Recommender) -> None:
        words = [(item, "Yes" if liked else "no") for item, liked in LIKED_AND_NOT]
        pd.testing.assert_frame_equal(recommender.recommend(words, 3), recommender.recommend(LIKED_AND_NOT, 3))

    def test_a_history_by_hand_matters_and_is_not_kept(self, recommender: Recommender) -> None:
        before = recommender.recommend([], 80).set_index("item_id")["probability"]
        turned = [(item, not liked) for item, liked in LIKED_AND_NOT]
        after = [recommender.recommend(history, 80) for history in (LIKED_AND_NOT, turned)]
        assert not np.allclose(
            after[0].sort_values("item_id")["probability"], after[1].sort_values("item_id")["probability"]
        )
        np.testing.assert_array_equal(recommender.recommend([], 80).set_index("item_id")["probability"], before)


def explain_with(recommender: Recommender, monkeypatch: pytest.MonkeyPatch, text: str) -> Explanation:
    """What is explained to LIKED_AND_NOT where the model writes this text."""
    monkeypatch.setattr("thinkrec.recommender.write_answers", lambda *_, **__: [text])
    return recommender.explain(LIKED_AND_NOT, "i00009")


class TestExplanations:
    def test_weights_are_the_routings(self, recommender: Recommender, finished: Path) -> None:
        weights = recommender.explain("u00003", "i00009").weights
        assert list(weights) == ["global", "expert_1", "expert_2"]
        routing = read_tensors(finished / artifacts.GATE / ROUTING_FILE)["weights"]
        np.testing.assert_allclose(list(weights.values()), routing[3], atol=1e-6)
        assert sum(recommender.explain(LIKED_AND_NOT, "i00009").weights.values()) == pytest.approx(1)

    def test_of_somebody_without_a_history_the_global_adapter_speaks(self, recommender: Recommender) -> None:
        explanation = recommender.explain([], "i00009")
        assert explanation.weights == {"global": 1, "expert_1": 0, "expert_2": 0}
        assert explanation.history.empty
        assert explanation.reason

    def test_what_the_model_saw_is_what_reasons_are_held_to(
        self, recommender: Recommender, finished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        titles = read_table(ITEMS, root=finished)["title"]
        words = artifacts.keyword_lists(read_table(KEYWORDS, root=finished), 4)
        absent = titles[50]
        text = f"Yes. Liked {words[1][0]}. One such title is {titles[1]}, not {absent}; it avoids {titles[5]}."
        explanation = explain_with(recommender, monkeypatch, text)
        evidence = explanation.evidence.set_index("name")
        assert list(explanation.history.itertuples(index=False, name=None)) == [
            (item, titles[int(item[1:])], liked) for item, liked in LIKED_AND_NOT
        ]
        assert (explanation.title, explanation.keywords) == (titles[9], words[9])
        assert evidence.loc[titles[1], ["liked", "disliked", "true"]].tolist() == [1, 0, True]
        assert evidence.loc[titles[5], ["liked", "disliked", "true"]].tolist() == [0, 1, True]
        assert evidence.loc[absent, ["target", "liked", "disliked", "standing"]].tolist() == [False, 0, 0, "ungrounded"]
        assert evidence.loc[words[1][0], "liked"] >= 1

    def test_a_reason_is_held_to_every_keyword_of_the_catalogue_as_in_evaluate(
        self, recommender: Recommender, finished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A keyword of the catalogue that no prompt shows is a claim without ground, not a word of prose."""
        words = read_table(KEYWORDS, root=finished)["keywords"]
        shown = {word for named in words for word in named[:4]}
        unshown = next(word for named in words for word in named[4:] if word not in shown)
        evidence = explain_with(recommender, monkeypatch, f"Yes. Liked {unshown}.").evidence
        assert evidence[["name", "standing"]].values.tolist() == [[unshown, "ungrounded"]]


class TestWrongInput:
    @pytest.mark.parametrize(
        ("ask", "message"),
        [
            (lambda r: r.recommend("nobody"), "user 'nobody': unknown; ids are those in column user_id of .*history"),
            (lambda r: r.explain("u00001", "i9"), "item 'i9': unknown; ids are those in column item_id"),
            (lambda r: r.recommend([("i9", True), ("i8", True)]), r"item 'i9' \(and 1 more\): unknown"),
            (lambda r: r.recommend([*LIKED_AND_NOT, ("i00001", False)]), "history: item 'i00001' stands in it twice"),
            (lambda r: r.score(pd.DataFrame({"user_id": ["u00001"]})), "pairs: no column item_id"),
            (lambda r: r.score(pd.DataFrame({"user_id": [3], "item_id": [4]})), "user '3': unknown"),
            (lambda r: r.recommend(3), "user '3': unknown"),
            (lambda r: r.recommend([("i00001", "perhaps")]), "history: item i00001: liked should be yes or no"),
            (lambda r: r.recommend(["41", "50"]), "history: should be pairs of an item id and whether it was liked"),
        ],
    )
    def test_one_line_says_what_to_do(self, recommender: Recommender, ask: object, message: str) -> None:
        with pytest.raises(UserError, match=message):
            ask(recommender)  # type: ignore[operator]

    def test_an_unfinished_project_names_the_stage_to_run(self, finished: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such folder"):
            Recommender.load(tmp_path / "nowhere")
        project = copy_project(finished, tmp_path / "project")
        (project / FEATURE_MODEL).unlink()
        with pytest.raises(UserError, match=r"model.safetensors: no such artefact; .*: dvc repro features"):
            Recommender.load(project)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dataset.name": "ml-1m"}, r"out/ingest: made with dataset\.name synthetic-small \(here ml-1m\)"),
            ({"dataset.threshold": 4.0}, r"out/ingest: made with dataset\.threshold None \(here 4\.0\)"),
            ({"prompt.history": 5}, r"out/sft: made with prompt\.history 6 \(here 5\)"),
            ({"gate.temperature": 0.7}, r"out/gate: made with gate\.temperature .* \(here 0\.7\)"),
            ({"experts.n": 3}, r"out/experts: made with experts\.n 2 \(here 3\); .* dvc repro experts"),
            ({"mf.dim": 9}, r"not a model as params.yaml describes it \(hybrid_mf\)"),
            ({"experts.added": ["new.txt"]}, r"out/experts: made with experts\.added \[\] \(here \['new\.txt'\]\)"),
        ],
    )
    def test_artefacts_of_other_parameters_are_refused_by_name(
        self, finished: Path, tmp_path: Path, changes: dict[str, object], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            Recommender.load(copy_project(finished, tmp_path / "project", changes))

    def test_a_model_of_other_interactions_is_refused(
        self, finished: Path, tmp_path: Path, table: pd.DataFrame
    ) -> None:
        project = copy_project(finished, tmp_path / "project")
        train = (table["split"] == "train").to_numpy()
        changed = table.assign(item=table["item"].where(~train, 0))
        artifacts.write_table(INTERACTIONS, changed, root=project)
        with pytest.raises(UserError, match="fitted on other interactions"):
            Recommender.load(project)
