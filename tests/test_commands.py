"""The commands over a finished project show what the API returns; what they export loads by itself."""

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

from tests.project import LIKED_AND_NOT, run_command
from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.experts.groups import load_groups
from thinkrec.export import export
from thinkrec.lm.scoring import score
from thinkrec.params import load
from thinkrec.recommender import Recommender


def test_score_adds_a_column(project: Path, recommender: Recommender) -> None:
    (project / "pairs.csv").write_text("note,user_id,item_id\na,u00002,i00004\nb,u00001,i00009\n", encoding="utf-8")
    result = run_command(project, "score", "pairs.csv", "scored.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("score: 2 pairs scored, in scored.csv (")
    scored = pd.read_csv(project / "scored.csv", dtype={"note": str})
    assert list(scored) == ["note", "user_id", "item_id", "probability"]
    assert scored["note"].tolist() == ["a", "b"]
    np.testing.assert_allclose(scored["probability"], recommender.score(scored), atol=1e-6)


def test_recommend_lists_items_for_a_user_or_a_history(project: Path, recommender: Recommender) -> None:
    lines = [f"{item},{'yes' if liked else 'No'}" for item, liked in LIKED_AND_NOT]
    (project / "mine.csv").write_text("\n".join(["item_id,liked", *lines]), encoding="utf-8")
    for option, user in ((("--user", "u00003"), "u00003"), (("--history", "mine.csv"), LIKED_AND_NOT)):
        result = run_command(project, "recommend", *option, "-k", "4")
        assert result.exit_code == 0, result.output
        recommended = recommender.recommend(user, 4)
        places = [result.stdout.index(item) for item in recommended["item_id"]]
        assert places == sorted(places)
        assert all(title in result.stdout for title in recommended["title"])
        assert f"{recommended['probability'][0]:.1%}" in result.stdout
        assert "recommend: 4 items (" in result.stdout


def test_explain_shows_all_of_it(project: Path, recommender: Recommender) -> None:
    result = run_command(project, "explain", "--user", "u00003", "--item", "i00009")
    assert result.exit_code == 0, result.output
    explanation = recommender.explain("u00003", "i00009")
    weight = f"expert_1 {explanation.weights['expert_1']:.0%}"
    shown = [explanation.title, *explanation.keywords, f"{explanation.probability:.1%}", weight]
    assert all(text in result.stdout for text in shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recommend",), "name a user with --user ID, or a person never seen with --history FILE"),
        (("recommend", "--user", "u00001", "--history", "x.csv"), "one of the two"),
        (
            ("recommend", "--history", "x.csv"),
            "x.csv: no such file; it should be CSV with the columns item_id, liked",
        ),
        (("recommend", "--history", "bad.csv"), "bad.csv: item i00002: liked should be yes or no (it is 'perhaps')"),
        (("explain", "--user", "x", "--item", "i00001"), "user 'x': unknown"),
        (
            ("score", "bad.csv", "out.csv"),
            "bad.csv: no column user_id; its first line should name user_id, item_id",
        ),
        (
            ("score", "empty.csv", "out.csv"),
            "empty.csv: no column user_id; its first line should name user_id, item_id",
        ),
        (("export", "out"), "out: is there already; name a new folder"),
        (("export", "new", "--expert", "3"), "--expert 3: this project has experts 1 to 2"),
    ],
)
def test_wrong_input_is_one_line(project: Path, arguments: tuple[str, ...], message: str) -> None:
    (project / "bad.csv").write_text("item_id,liked\ni00001,yes\ni00002,perhaps\n", encoding="utf-8")
    (project / "empty.csv").write_text("", encoding="utf-8")
    result = run_command(project, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{arguments[0]}: ") and result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (project / "out.csv").exists() and not (project / "new").exists()


def test_exported_adapters_load_and_the_manifest_says_what_they_are(project: Path) -> None:
    result = run_command(project, "export", "served")
    assert result.exit_code == 0, result.output
    folder = project / "served"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    users = np.bincount(load_groups(project / artifacts.EXPERTS).group + 1)[1:]
    assert [(adapter["name"], adapter["rank"], adapter["users"]) for adapter in manifest["adapters"]] == [
        ("expert_1", 4, users[0]),
        ("expert_2", 4, users[1]),
    ]
    assert all((folder / name).is_file() for name in manifest["inputs"]) and manifest["inputs"]
    shutil.rmtree(project / "out")  # nothing else is needed
    for adapter in manifest["adapters"]:
        model = AutoModelForCausalLM.from_pretrained(folder / manifest["model"])
        PeftModel.from_pretrained(model, str(folder / adapter["path"]))


def test_a_merged_expert_scores_as_the_mixture_does_with_all_weight_on_it(
    project: Path, recommender: Recommender
) -> None:
    assert run_command(project, "export", "merged", "--expert", "2").exit_code == 0
    manifest = json.loads((project / "merged" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["adapters"], manifest["merged_adapter"]) == ([], "expert_2")
    every = np.arange(80)
    view = recommender._view([replace(recommender._question("u00003"), candidates=every)])
    by_mixture = [view.loaded.score(view.targets, weights) for weights in np.eye(3, dtype=np.float32)[[0, 2]]]
    model = view.loaded.model
    model.backbone = AutoModelForCausalLM.from_pretrained(project / "merged" / "model")
    alone = score(model, view.loaded.layout, view.targets)
    np.testing.assert_allclose(alone, by_mixture[1], atol=1e-4)
    assert not np.allclose(by_mixture[0], by_mixture[1], atol=1e-3)


def test_a_merge_into_four_bits_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    params = load(project / "params.yaml")
    quantised = params.model_copy(update={"backbone": params.backbone.model_copy(update={"load_in_4bit": True})})
    with pytest.raises(UserError, match="4 bits"):
        export(project / "in_4_bits", quantised, expert=1)
    assert not (project / "in_4_bits").exists()
    assert export(project / "in_4_bits", quantised)["adapters"]  # beside it they may stand
