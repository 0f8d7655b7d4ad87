"""The API over a finished project: as the evaluation scored, for anybody, and for many candidates at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.project import NEWCOMERS, copy_project, run_command, run_stage
from thinkrec import artifacts
from thinkrec.artifacts import FEATURE_MODEL, FEATURES, INTERACTIONS, ITEMS, KEYWORDS, PREDICTIONS, REASONS, read_table
from thinkrec.errors import UserError
from thinkrec.experts.groups import load_groups
from thinkrec.experts.routing import Routing, load_routing
from thinkrec.experts.rule import centroid_routing
from thinkrec.features.artefact import load_features, save_features
from thinkrec.features.statistics import causal_statistics
from thinkrec.lm.scoring import score
from thinkrec.params import PARAMS_FILE
from thinkrec.params import load as load_params
from thinkrec.recommender import Recommender

LIKED_AND_NOT = [("i00001", True), ("i00005", False), ("i00007", True)]


@pytest.fixture(scope="module")
def recommender(finished: Path) -> Recommender:
    return Recommender.load(finished)


@pytest.fixture(scope="module")
def table(finished: Path) -> pd.DataFrame:
    return read_table(INTERACTIONS, root=finished)


def user_id(number: int) -> str:
    return f"u{number:05d}"


def item_id(number: int) -> str:
    return f"i{number:05d}"


def routing_of(project: Path) -> Routing:
    params, states = load_params(project / PARAMS_FILE), len(load_features(project / FEATURES).user_vectors)
    return load_routing(load_groups(project / artifacts.EXPERTS), params.gate, project, states=states)


def pairs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the interactions table by the dataset's own ids."""
    return pd.DataFrame({"user_id": rows["user"].map(user_id), "item_id": rows["item"].map(item_id)})


def cut(source: Path, to: Path, moment: int) -> Path:
    """The project as it was before a moment: later interactions, and what is known of each, are not there."""
    folder = copy_project(source, to)
    table = read_table(INTERACTIONS, root=folder)
    kept = (table["timestamp"] < moment).to_numpy()
    artifacts.write_table(INTERACTIONS, table[kept], root=folder)
    by_row = ("item_row", "user_row", "state", "statistics")
    features = {}
    for protocol in ("online", "static"):
        one = load_features(folder / FEATURES, protocol=protocol)
        features[protocol] = replace(one, **{name: getattr(one, name)[kept] for name in by_row})
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
        said = 0
        for moment, rows in chosen.groupby("timestamp"):
            recommender = Recommender.load(cut(finished, tmp_path / str(moment), int(moment)))
            np.testing.assert_allclose(recommender.score(pairs_of(rows)), rows["thinkrec"], atol=1e-5)
            for row in rows[rows["reason"].notna()].itertuples():
                explanation = recommender.explain(user_id(row.user), item_id(row.item))
                assert explanation.reason == row.reason
                assert explanation.probability == pytest.approx(row.thinkrec, abs=1e-5)
                said += 1
        assert said >= 3

    @pytest.mark.parametrize("kind", ["lightgcn", "sasrec", "gsasrec"])
    def test_whatever_the_feature_model_its_features_are_those_of_the_artefact(
        self, finished: Path, chosen: pd.DataFrame, tmp_path: Path, kind: str
    ) -> None:
        project = copy_project(finished, tmp_path / "project", {"features.model": kind})
        run_stage(project, "features")
        stored = load_features(project / FEATURES)
        moment, rows = next(iter(chosen[chosen["group"] < 0].groupby("timestamp")))
        recommender = Recommender.load(cut(project, tmp_path / "cut", int(moment)))
        for row in rows.itertuples():
            asked = recommender._known(row.user, np.asarray([row.item]))
            features = recommender._view([asked]).loaded.features
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
        asked = recommender._asked(user_id(user) if history is None else history)
        features = recommender._view([replace(asked, candidates=candidates)]).loaded.features
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

    def test_pairs_keep_their_order_whoever_else_is_asked_about(
        self, recommender: Recommender, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = pairs_of(table.sample(40, random_state=0)).reset_index(drop=True)
        whole = recommender.score(some)
        mixed = np.random.default_rng(0).permutation(len(some))
        np.testing.assert_allclose(recommender.score(some.iloc[mixed]), whole[mixed], atol=1e-5)
        monkeypatch.setattr("thinkrec.recommender.VIEW_ROWS", 100)  # several views
        np.testing.assert_allclose(recommender.score(some), whole, atol=1e-5)
        assert len(recommender.score(some.iloc[:0])) == 0


def test_a_project_is_read_from_its_folder_wherever_the_process_is(
    finished: Path, recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def nowhere(_: object) -> None:
        raise AssertionError("the working directory is the process's, not ours")

    with monkeypatch.context() as patched:
        patched.setattr("os.chdir", nowhere)
        elsewhere = Recommender.load(finished)
    pairs = pd.DataFrame({"user_id": ["u00003"], "item_id": ["i00009"]})
    np.testing.assert_array_equal(elsewhere.score(pairs), recommender.score(pairs))
    assert not list(tmp_path.iterdir())


class TestRecommendations:
    @pytest.mark.parametrize("user", ["u00003", LIKED_AND_NOT, []], ids=["known", "never seen", "no history"])
    def test_the_most_probable_items_that_are_not_rated_yet(
        self, recommender: Recommender, finished: Path, table: pd.DataFrame, user: str | list[tuple[str, bool]]
    ) -> None:
        found = recommender.recommend(user, 5)
        assert list(found) == ["item_id", "title", "probability"]
        assert found["probability"].is_monotonic_decreasing and len(found) == 5
        items = read_table(ITEMS, root=finished).set_index("item_id")["title"]
        assert items[found["item_id"]].tolist() == found["title"].tolist()
        rated = (
            {item for item, _ in user}
            if isinstance(user, list)
            else set(pairs_of(table[table["user"] == 3])["item_id"])
        )
        every = recommender.recommend(user, 1000)
        assert set(every["item_id"]) == set(items.index) - rated
        pd.testing.assert_frame_equal(every.head(5), found)
        for row in found.itertuples():
            assert recommender.explain(user, row.item_id).probability == pytest.approx(row.probability, abs=1e-4)

    def test_the_feature_model_draws_up_the_shortlist(self, recommender: Recommender) -> None:
        affinity = recommender._affinity(recommender._asked(LIKED_AND_NOT))
        rated = {int(item[1:]) for item, _ in LIKED_AND_NOT}
        best = [item_id(item) for item in np.argsort(-affinity) if item not in rated]
        every = recommender.recommend(LIKED_AND_NOT, 1000).set_index("item_id")["probability"]
        found = recommender.recommend(LIKED_AND_NOT, 3, shortlist=8)
        assert found["item_id"].tolist() == every[best[:8]].sort_values(ascending=False).index[:3].tolist()
        assert set(recommender.recommend(LIKED_AND_NOT, 4, shortlist=1)["item_id"]) == set(best[:4])

    def test_a_history_by_hand_matters_and_is_not_kept(self, recommender: Recommender) -> None:
        before = recommender.recommend([], 80).set_index("item_id")["probability"]
        turned = [(item, not liked) for item, liked in LIKED_AND_NOT]
        after = [recommender.recommend(history, 80) for history in (LIKED_AND_NOT, turned)]
        assert not np.allclose(
            after[0].sort_values("item_id")["probability"], after[1].sort_values("item_id")["probability"]
        )
        np.testing.assert_array_equal(recommender.recommend([], 80).set_index("item_id")["probability"], before)


def test_whoever_the_routing_matrix_has_no_row_for_is_routed_as_those_that_it_has(finished: Path) -> None:
    """The trained gate on every state of the matrix: a user never seen is a state like them."""
    routing, vectors = routing_of(finished), load_features(finished / FEATURES).user_vectors
    assert routing.gate
    np.testing.assert_allclose(routing.of_vectors(vectors), routing.weights, atol=1e-6)


class TestExplanations:
    def test_weights_are_the_routings(self, recommender: Recommender, finished: Path) -> None:
        said = recommender.explain("u00003", "i00009")
        weights = routing_of(finished).weights[3]
        assert list(said.weights) == ["global", "expert_1", "expert_2"]
        np.testing.assert_allclose(list(said.weights.values()), weights, atol=1e-6)
        assert sum(recommender.explain(LIKED_AND_NOT, "i00009").weights.values()) == pytest.approx(1)

    def test_of_somebody_without_a_history_the_global_adapter_speaks(self, recommender: Recommender) -> None:
        said = recommender.explain([], "i00009")
        assert said.weights == {"global": 1, "expert_1": 0, "expert_2": 0}
        assert said.history == 0
        assert said.reason

    def test_what_the_model_saw_is_what_reasons_are_held_to(
        self, recommender: Recommender, finished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        titles = read_table(ITEMS, root=finished)["title"]
        words = artifacts.keyword_lists(read_table(KEYWORDS, root=finished), 4)
        absent = titles[50]
        text = f"Yes. Liked {words[1][0]}. One such title is {titles[1]}, not {absent}; it avoids {titles[5]}."
        monkeypatch.setattr("thinkrec.recommender.write_answers", lambda *_, **__: [text])
        said = recommender.explain(LIKED_AND_NOT, "i00009")
        evidence = said.evidence.set_index("name")
        assert said.history == 3
        assert (said.title, said.keywords) == (titles[9], words[9])
        assert evidence.loc[titles[1], ["liked", "disliked", "shown"]].tolist() == [1, 0, True]
        assert evidence.loc[titles[5], ["liked", "disliked", "shown"]].tolist() == [0, 1, True]
        assert evidence.loc[absent, ["target", "liked", "disliked", "shown"]].tolist() == [False, 0, 0, False]
        assert evidence.loc[words[1][0], "liked"] >= 1

    def test_a_reason_is_held_to_every_keyword_of_the_catalogue_as_in_evaluate(
        self, recommender: Recommender, finished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A keyword of the catalogue that no prompt shows is a claim without ground, not a word of prose."""
        words = read_table(KEYWORDS, root=finished)["keywords"]
        shown = {word for named in words for word in named[:4]}
        unshown = next(word for named in words for word in named[4:] if word not in shown)
        monkeypatch.setattr("thinkrec.recommender.generate", lambda *_, **__: [f"Yes. Liked {unshown}."])
        evidence = recommender.explain(LIKED_AND_NOT, "i00009").evidence
        assert evidence[["name", "shown"]].values.tolist() == [[unshown, False]]


@pytest.fixture(scope="module")
def simple(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """Of a project without experts."""
    changes = {"experts.n": 0, "sft.epochs": 1}
    project = copy_project(finished, tmp_path_factory.mktemp("simple") / "project", changes)
    for stage in ("sft", "experts", "gate"):
        run_stage(project, stage)
    return Recommender.load(project)


class TestOtherProjects:
    def test_without_a_trained_gate_the_rule_routes_whoever_is_new(self, finished: Path, tmp_path: Path) -> None:
        project = copy_project(finished, tmp_path / "project", {"gate.kind": "centroid"})
        run_stage(project, "gate")
        recommender = Recommender.load(project)
        asked = replace(recommender._asked(LIKED_AND_NOT), candidates=np.asarray([9]))
        state = recommender._view([asked]).loaded.features.user_vectors_of(np.asarray([-1]))
        expected = centroid_routing(state, load_groups(project / artifacts.EXPERTS), 0.1)[0]
        assert list(recommender.explain(LIKED_AND_NOT, "i00009").weights.values()) == expected.tolist()

    def test_without_experts_the_global_model_speaks_alone(self, simple: Recommender) -> None:
        assert len(simple.recommend("u00003", 3)) == 3
        assert simple.explain(LIKED_AND_NOT, "i00009").weights == {"global": 1}

    def test_an_added_expert_speaks_and_is_exported_with_the_others(self, finished: Path, tmp_path: Path) -> None:
        project = copy_project(finished, tmp_path / "project", {"experts.added": [str(NEWCOMERS)]})
        for stage in ("experts", "gate"):
            run_stage(project, stage)
        said = Recommender.load(project).explain("u00020", "i00009")
        assert list(said.weights) == ["global", "expert_1", "expert_2", "expert_3"]
        assert sum(said.weights.values()) == pytest.approx(1)
        assert run_command(project, "export", "served").exit_code == 0
        manifest = json.loads((project / "served" / "manifest.json").read_text(encoding="utf-8"))
        assert [one["name"] for one in manifest["adapters"]] == ["expert_1", "expert_2", "expert_3"]
        assert manifest["adapters"][2]["users"] == 12
        assert (project / "served" / "expert_3" / "adapter_model.safetensors").is_file()


class TestWrongInput:
    @pytest.mark.parametrize(
        ("ask", "said"),
        [
            (lambda r: r.recommend("nobody"), "user 'nobody': unknown; ids are those in column user_id of .*history"),
            (lambda r: r.explain("u00001", "i9"), "item 'i9': unknown; ids are those in column item_id"),
            (lambda r: r.recommend([("i9", True), ("i8", True)]), r"item 'i9' \(and 1 more\): unknown"),
            (lambda r: r.recommend([*LIKED_AND_NOT, ("i00001", False)]), "history: item 'i00001' stands in it twice"),
            (lambda r: r.score(pd.DataFrame({"user_id": ["u00001"]})), "pairs: no column item_id"),
            (lambda r: r.score(pd.DataFrame({"user_id": [3], "item_id": [4]})), "user '3': unknown"),
            (lambda r: r.recommend(3), "user '3': unknown"),
        ],
    )
    def test_one_line_says_what_to_do(self, recommender: Recommender, ask: object, said: str) -> None:
        with pytest.raises(UserError, match=said) as error:
            ask(recommender)  # type: ignore[operator]
        assert "\n" not in str(error.value)

    def test_an_unfinished_project_names_the_stage_to_run(self, finished: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such folder"):
            Recommender.load(tmp_path / "nowhere")
        project = copy_project(finished, tmp_path / "project")
        (project / FEATURE_MODEL).unlink()
        with pytest.raises(UserError, match=r"model.safetensors: no such artefact; .*: dvc repro features"):
            Recommender.load(project)
        other = copy_project(finished, tmp_path / "other", {"mf.dim": 9})
        with pytest.raises(UserError, match=r"not a model as params.yaml describes it \(mf\)"):
            Recommender.load(other)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dataset.name": "ml-1m"}, r"out/ingest: made with dataset\.name synthetic-small \(here ml-1m\)"),
            ({"dataset.threshold": 4.0}, r"out/ingest: made with dataset\.threshold None \(here 4\.0\)"),
            ({"experts.n": 3}, r"out/experts: made with experts\.n 2 \(here 3\); .* dvc repro experts"),
            ({"experts.added": ["new.txt"]}, r"out/experts: made with experts\.added \[\] \(here \['new\.txt'\]\)"),
        ],
    )
    def test_artefacts_of_another_dataset_or_of_other_experts_are_refused_by_name(
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


class TestCommands:
    def test_score_adds_a_column(self, project: Path, recommender: Recommender) -> None:
        (project / "pairs.csv").write_text("note,user_id,item_id\na,u00002,i00004\nb,u00001,i00009\n", encoding="utf-8")
        result = run_command(project, "score", "pairs.csv", "scored.csv")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("score: 2 pairs scored, in scored.csv (")
        scored = pd.read_csv(project / "scored.csv", dtype={"note": str})
        assert list(scored) == ["note", "user_id", "item_id", "probability"]
        assert scored["note"].tolist() == ["a", "b"]
        np.testing.assert_allclose(scored["probability"], recommender.score(scored), atol=1e-6)

    def test_recommend_lists_items_for_a_user_or_a_history(self, project: Path, recommender: Recommender) -> None:
        lines = [f"{item},{'yes' if liked else 'No'}" for item, liked in LIKED_AND_NOT]
        (project / "mine.csv").write_text("\n".join(["item_id,liked", *lines]), encoding="utf-8")
        for option, user in ((("--user", "u00003"), "u00003"), (("--history", "mine.csv"), LIKED_AND_NOT)):
            result = run_command(project, "recommend", *option, "-k", "4")
            assert result.exit_code == 0, result.output
            found = recommender.recommend(user, 4)
            places = [result.stdout.index(item) for item in found["item_id"]]
            assert places == sorted(places)
            assert all(title in result.stdout for title in found["title"])
            assert f"{found['probability'][0]:.1%}" in result.stdout
            assert "recommend: 4 items (" in result.stdout

    def test_explain_shows_all_of_it(self, project: Path, recommender: Recommender) -> None:
        result = run_command(project, "explain", "--user", "u00003", "--item", "i00009")
        assert result.exit_code == 0, result.output
        said = recommender.explain("u00003", "i00009")
        for shown in (
            said.title,
            *said.keywords,
            f"{said.probability:.1%}",
            f"expert_1 {said.weights['expert_1']:.0%}",
        ):
            assert shown in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("recommend",), "name a user with --user ID, or a person never seen with --history FILE"),
            (("recommend", "--user", "u00001", "--history", "x.csv"), "one of the two"),
            (
                ("recommend", "--history", "x.csv"),
                "x.csv: no such file; it should be CSV with the columns item_id, liked",
            ),
            (("recommend", "--history", "bad.csv"), "bad.csv: line 3: liked should be yes or no (it is 'perhaps')"),
            (("explain", "--user", "x", "--item", "i00001"), "user 'x': unknown"),
            (
                ("score", "bad.csv", "out.csv"),
                "bad.csv: no column user_id; its first line should name user_id, item_id",
            ),
            (("score", "empty.csv", "out.csv"), "empty.csv: not readable as CSV"),
            (("export", "out"), "out: is there already; name a new folder"),
            (("export", "new", "--expert", "3"), "--expert 3: this project has experts 1 to 2"),
        ],
    )
    def test_wrong_input_is_one_line(self, project: Path, arguments: tuple[str, ...], said: str) -> None:
        (project / "bad.csv").write_text("item_id,liked\ni00001,yes\ni00002,perhaps\n", encoding="utf-8")
        (project / "empty.csv").write_text("", encoding="utf-8")
        result = run_command(project, *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"{arguments[0]}: ") and result.stderr.count("\n") == 1
        assert said in result.stderr
        assert not (project / "out.csv").exists() and not (project / "new").exists()

    def test_exported_adapters_load_and_the_manifest_says_what_they_are(self, project: Path) -> None:
        result = run_command(project, "export", "served")
        assert result.exit_code == 0, result.output
        folder = project / "served"
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        users = np.bincount(load_groups(project / artifacts.EXPERTS).group + 1)[1:]
        assert [(one["name"], one["rank"], one["users"]) for one in manifest["adapters"]] == [
            ("expert_1", 4, users[0]),
            ("expert_2", 4, users[1]),
        ]
        assert all((folder / name).is_file() for name in manifest["inputs"]) and manifest["inputs"]
        shutil.rmtree(project / "out")  # nothing else is needed
        for one in manifest["adapters"]:
            model = AutoModelForCausalLM.from_pretrained(folder / manifest["model"])
            PeftModel.from_pretrained(model, str(folder / one["path"]))

    def test_a_merged_expert_scores_as_the_mixture_does_with_all_weight_on_it(
        self, project: Path, recommender: Recommender
    ) -> None:
        assert run_command(project, "export", "merged", "--expert", "2").exit_code == 0
        manifest = json.loads((project / "merged" / "manifest.json").read_text(encoding="utf-8"))
        assert (manifest["adapters"], manifest["merged_adapter"]) == ([], "expert_2")
        every = np.arange(80)
        view = recommender._view([replace(recommender._asked("u00003"), candidates=every)])
        by_mixture = [view.loaded.score(view.targets, weights) for weights in np.eye(3, dtype=np.float32)[[0, 2]]]
        model = view.loaded.model
        model.backbone = AutoModelForCausalLM.from_pretrained(project / "merged" / "model")
        alone = score(model, view.loaded.layout, view.targets)
        np.testing.assert_allclose(alone, by_mixture[1], atol=1e-4)
        assert not np.allclose(by_mixture[0], by_mixture[1], atol=1e-3)
