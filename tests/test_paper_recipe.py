"""The `paper` recipe through the whole chain: the question prompt, LoRAs on a backbone that stays as it is."""

from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.project import LIKED_AND_NOT, copy_project, digests, run_stage, scores_of
from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.export import export
from thinkrec.params import load
from thinkrec.provenance import PROVENANCE, hash_of
from thinkrec.recommender import Recommender
from thinkrec.text.chat import frame_hash
from thinkrec.text.vocabulary import find_vocabulary, tokenizer_hash

PAPER = {
    "sft.recipe": "paper",
    "prompt.layout": "question",
    "sft.epochs": 1,
    "sft.pairwise": 0.0,
}


@pytest.fixture(scope="module")
def paper(finished, tmp_path_factory):
    folder = copy_project(finished, tmp_path_factory.mktemp("paper") / "project", PAPER)
    for stage in ("sft", "experts", "gate", "evaluate"):
        run_stage(folder, stage)
    return folder


def restamp(project):
    """Say of a project's adapters that they were made with its backbone and global model as these are now."""
    backbone, sft, experts = (project / "out" / name for name in ("backbone", "sft", "experts"))
    tokenizer = AutoTokenizer.from_pretrained(str(backbone))
    now = {"backbone": hash_of(backbone), "tokenizer": tokenizer_hash(tokenizer)}
    if tokenizer.chat_template is not None:
        now["frame"] = frame_hash(tokenizer, find_vocabulary(tokenizer).begin)
    artifacts.write_json(sft / PROVENANCE, artifacts.read_json(sft / PROVENANCE) | now)
    stored = artifacts.read_json(experts / PROVENANCE)
    artifacts.write_json(experts / PROVENANCE, stored | {"sft": hash_of(sft)})


def lora(folder):
    return load_file(folder / "adapter_model.safetensors")


def test_the_backbone_stays_and_the_global_model_is_an_adapter(paper, finished):
    assert digests(paper, "out/backbone") == digests(finished, "out/backbone")
    assert sorted(path.name for path in (paper / "out" / "sft").iterdir()) == [
        "adapter",
        "measures.json",
        "projector.safetensors",
        "provenance.json",
        "recipe.json",
    ]
    phases = artifacts.read_json(paper / "metrics" / "sft.json")["best"]
    assert set(phases) == {"text", "refinement", "projector"}


def test_experts_are_copies_of_the_global_adapter_but_for_their_last_layers(paper):
    first = lora(paper / "out" / "sft" / "adapter")
    assert any(np.any(weight) for name, weight in first.items() if "lora_B" in name)
    for number in (1, 2):
        expert = lora(paper / "out" / "experts" / f"expert_{number}")
        assert set(expert) == set(first)
        changed = {name for name in first if not np.array_equal(first[name], expert[name])}
        assert changed and all(".layers.1." in name for name in changed)


def test_it_ranks_and_explains(paper):
    metrics = artifacts.read_json(paper / "metrics" / "evaluate.json")
    assert 0.3 < metrics["test"]["auc"] < 1
    recommender = Recommender.load(paper)
    user = artifacts.read_table(artifacts.USERS, root=paper)["user_id"].iloc[0]
    found = recommender.recommend(user, k=3)
    assert found["probability"].between(0, 1).all() and found["probability"].is_monotonic_decreasing
    said = recommender.explain(user, found["item_id"].iloc[0])
    assert said.probability == pytest.approx(found["probability"].iloc[0], abs=1e-5)
    assert sum(said.weights.values()) == pytest.approx(1)
    by_pass, plainly = scores_of(recommender, [user, LIKED_AND_NOT, []])
    np.testing.assert_allclose(by_pass, plainly, atol=1e-5)


def test_the_global_adapter_is_exported_beside_the_experts(paper, tmp_path):
    other = copy_project(paper, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(str(other / "out" / "backbone"))
    with (other / "out" / "backbone" / "chat_template.jinja").open("w") as file:
        file.write("{% for message in messages %}<user>{{ message['content'] }}{% endfor %}<assistant>\n")
    restamp(other)
    with chdir(other):
        manifest = export(Path("served"), load())
        merged = export(Path("merged"), load(), expert=0)
    assert [one["name"] for one in manifest["adapters"]] == ["adapter", "expert_1", "expert_2"]
    assert (manifest["merged_adapter"], merged["merged_adapter"], merged["adapters"]) == (None, "adapter", [])
    assert manifest["adapters"][0]["users"] is None and manifest["score"].startswith("logit of Yes,")
    for name in ("adapter", "expert_1"):
        model = AutoModelForCausalLM.from_pretrained(str(other / "served" / "model"))
        loaded = PeftModel.from_pretrained(model, str(other / "served" / name))
        assert any("lora_" in weight for weight in loaded.state_dict())
    # An answer of a chat model begins its line: its verdict is another token than " Yes".
    first = tokenizer("\nYes", add_special_tokens=False)["input_ids"]
    assert manifest["verdicts"]["Yes"] in first != tokenizer(" Yes", add_special_tokens=False)["input_ids"]


def test_another_backbone_than_it_was_made_with_is_refused(paper, tmp_path):
    other = copy_project(paper, tmp_path / "other")
    config = other / "out" / "backbone" / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(
        UserError, match=r"out/sft: made with backbone [0-9a-f]{12} \(here [0-9a-f]{12}\); put that back"
    ):
        Recommender.load(other)


def test_a_global_adapter_that_changes_nothing_is_refused(paper, tmp_path):
    other = copy_project(paper, tmp_path / "other")
    weights = other / "out" / "sft" / "adapter" / "adapter_model.safetensors"
    save_file({name: 0 * weight for name, weight in load_file(weights).items()}, weights)
    restamp(other)
    with pytest.raises(UserError, match=r"out/sft/adapter: changes no score, so it learned nothing"):
        run_stage(other, "gate")
