"""The commands over a finished project show what the API returns; what they export loads by itself."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.project import LIKED_AND_NOT, run_command
from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.experts.groups import load_groups
from thinkrec.export import export
from thinkrec.lm.scoring import score
from thinkrec.params import load


def test_score_adds_a_column(project, recommender):
    (project / "pairs.csv").write_text("note,user_id,item_id\na,u00002,i00004\nb,u00001,i00009\n", encoding="utf-8")
    result = run_command(project, "score", "pairs.csv", "scored.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("score: 2 of 2 pairs scored, in scored.csv (")
    scored = pd.read_csv(project / "scored.csv", dtype={"note": str})
    assert list(scored) == ["note", "user_id", "item_id", "probability"]
    assert scored["note"].tolist() == ["a", "b"]
    np.testing.assert_allclose(scored["probability"], recommender.score(scored), atol=1e-6)


def test_recommend_lists_items_for_a_user_or_a_history(project, recommender):
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
        assert result.stderr.startswith("recommend: 4 items (")


def test_explain_shows_all_of_it(project, recommender):
    result = run_command(project, "explain", "--user", "u00003", "--item", "i00009")
    assert result.exit_code == 0, result.output
    explanation = recommender.explain("u00003", "i00009")
    weight = f"expert_1 {explanation.weights['expert_1']:.0%}"
    shown = [explanation.title, *explanation.keywords, f"{explanation.probability:.1%}", weight]
    assert all(text in result.stdout for text in shown)


def asked_by_a_program(project: Path, *arguments: str) -> Any:
    """The one JSON document that a command answers with; its closing line is on stderr."""
    result = run_command(project, *arguments, "--json")
    assert result.exit_code == 0, result.output
    assert f"{arguments[0]}: " in result.stderr
    return json.loads(result.stdout)


def test_programs_get_what_the_api_returns(project, recommender):
    def same(document: Any, expected: Any) -> None:
        pd.testing.assert_frame_equal(pd.DataFrame(document), pd.DataFrame(expected), check_dtype=False)

    same(asked_by_a_program(project, "recommend", "--user", "u00003"), recommender.recommend("u00003"))
    explained = asked_by_a_program(project, "explain", "--user", "u00003", "--item", "i00009")
    expected = recommender.explain("u00003", "i00009").to_dict()
    assert list(explained) == list(expected) and explained["reason"] == expected["reason"]
    same(explained["history"], expected["history"])
    users = asked_by_a_program(project, "users", "U0000")
    assert [user["user_id"] for user in users] == [f"u0000{number}" for number in range(10)]
    item = asked_by_a_program(project, "items", "i00009")[0]
    assert (item["title"], list(item)) == (
        expected["title"],
        ["item_id", "title", "year", "categories", "interactions"],
    )
    assert asked_by_a_program(project, "items", expected["title"].upper()) == [item]
    assert asked_by_a_program(project, "quote")["total"]["requests"] == [0, 0]


def test_what_no_title_has_in_it_gets_suggestions(project, recommender):
    title = recommender.recommend("u00003", 1)["title"][0]
    assert f"did you mean {title!r} (i" in run_command(project, "items", f"{title}x").stderr


def test_score_goes_on_where_ids_are_unknown(project, recommender):
    lines = ["user_id,item_id", "nobody,i00004", "u00001,i00009", *(f"u00001,none{number}" for number in range(7))]
    (project / "pairs.csv").write_text("\n".join(lines), encoding="utf-8")
    document = asked_by_a_program(project, "score", "pairs.csv", "scored.csv")
    assert document == {
        "pairs": 9,
        "scored": 1,
        "file": "scored.csv",
        "unknown": {"users": ["nobody"], "items": [f"none{number}" for number in range(7)]},
    }
    written = (project / "scored.csv").read_text(encoding="utf-8").splitlines()
    assert written[1] == "nobody,i00004,"
    assert float(written[2].rpartition(",")[2]) == pytest.approx(
        recommender.score(pd.DataFrame({"user_id": ["u00001"], "item_id": ["i00009"]}))[0], abs=1e-6
    )
    told = run_command(project, "score", "pairs.csv", "scored.csv").stderr
    assert "7 unknown items: 'none0', 'none1', 'none2', 'none3', 'none4' and 2 more; their pairs have no" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recommend",), "name a user with --user ID, or a person never seen with --history FILE"),
        (("recommend", "--user", "u00001", "--history", "x.csv"), "one of the two"),
        (
            ("recommend", "--history", "x.csv"),
            "x.csv: no such file; it should be CSV with the columns item_id or title, liked",
        ),
        (("explain", "--user", "x", "--item", "i00001"), "user 'x': unknown"),
        (("score", "pairs.csv", "out"), "out: is a folder; name a file to write"),
        (("recommend", "--all", "out"), "out: is a folder; name a file to write"),
        (("rank", "--page", "out/report/ranking.html"), "is among a stage's artefacts"),
        (("recommend", "--all", "all.parquet", "--user", "u00001"), "--all is of every user"),
        (("export", "out"), "out: is there already; name a new folder"),
        (("export", "new", "--expert", "3"), "--expert 3: this project has experts 1 to 2"),
        (("export", "out", "--traces", "answer"), "out: is there already; name a new folder"),
        (("export", "new", "--traces", "answer", "--expert", "1"), "leave --expert out"),
    ],
)
def test_wrong_input_is_one_line(project, arguments, message):
    (project / "pairs.csv").write_text("user_id,item_id\nu00001,i00001\n", encoding="utf-8")
    result = run_command(project, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{arguments[0]}: ") and result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (project / "out.csv").exists() and not (project / "new").exists()


def test_exported_adapters_load_and_the_manifest_says_what_they_are(project):
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
    umask = os.umask(0o077)
    os.umask(umask)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}
    example = manifest["example"]
    items = artifacts.read_table(artifacts.ITEMS, root=project)["title"]
    titles = items[artifacts.read_table(artifacts.INTERACTIONS, root=project)["item"].unique()[:3]].tolist()
    places = [example["text"].index(title) for title in titles]
    assert places == sorted(places) and " Yes" in example["text"] and not example["text"].endswith((" Yes", " No"))
    assert {example["tokens"][slot["token"]] for slot in example["slots"]} == {manifest["slot_token"]}
    shutil.rmtree(project / "out")  # nothing else is needed
    for adapter in manifest["adapters"]:
        model = AutoModelForCausalLM.from_pretrained(folder / manifest["model"])
        PeftModel.from_pretrained(model, str(folder / adapter["path"]))


def test_a_merged_expert_scores_as_the_mixture_does_with_all_weight_on_it(project, recommender):
    assert run_command(project, "export", "merged", "--expert", "2").exit_code == 0
    manifest = json.loads((project / "merged" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["adapters"], manifest["merged_adapter"]) == ([], "expert_2")
    every = np.arange(80)
    view = recommender.viewer.view([replace(recommender._question("u00003"), candidates=every)])
    by_mixture = [view.loaded.score(view.targets, weights) for weights in np.eye(3, dtype=np.float32)[[0, 2]]]
    model = view.loaded.model
    model.backbone = AutoModelForCausalLM.from_pretrained(project / "merged" / "model")
    alone = score(model, view.loaded.layout, view.targets)
    np.testing.assert_allclose(alone, by_mixture[1], atol=1e-4)
    assert not np.allclose(by_mixture[0], by_mixture[1], atol=1e-3)


def test_a_merge_into_four_bits_is_refused(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(PreTrainedModel, "is_quantized", True, raising=False)
    with pytest.raises(UserError, match="4 bits"):
        export(project / "in_4_bits", load(project / "params.yaml"), expert=1)
    assert not (project / "in_4_bits").exists()
    assert export(project / "in_4_bits", load(project / "params.yaml"))["adapters"]  # beside it they may stand
