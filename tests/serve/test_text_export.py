"""A text-only export on a real server: `transformers serve` gives verdicts the probabilities that thinkrec gives them.

The server answers with words, not with probabilities. But it takes a bias: the one at which its greedy answer turns
from Yes to No is the difference of the two logits.
"""

import json
import urllib.request
from contextlib import chdir

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.project import copy_project, run_stage
from tests.serving import SERVED, transformers_serve
from thinkrec import artifacts
from thinkrec.experts.routing import open_finished
from thinkrec.export import export, prompt_of
from thinkrec.metrics import sigmoid
from thinkrec.params import load

pytestmark = SERVED

EXPERT = 1
LIFT = 64.0  # of both verdicts' logits above all other words
WIDEST = 16.0  # of the two logits' difference
STEPS = 16  # halvings: down to 2.4e-4, in probability at most a quarter of that
ROWS = 4
TEXT_ONLY = {"prompt.slots": [], "prompt.layout": "question", "sft.epochs": 1, "sft.think_share": 0}
RECIPES = {"compact": {"sft.match_size": 0}, "paper": {"sft.recipe": "paper"}}


def ask(endpoint, model, prompt, biases):
    """The one word that the server finds most likely after a prompt, with these biases added to tokens' logits."""
    config = {"max_new_tokens": 1, "do_sample": False, "sequence_bias": [[[token], bias] for token, bias in biases]}
    body = {"model": str(model), "prompt": prompt, "generation_config": json.dumps(config)}
    request = urllib.request.Request(
        f"{endpoint}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["text"].strip()


def difference(endpoint, model, prompt, verdicts):
    """The server's logit of Yes minus its logit of No after a prompt."""
    low, high = -WIDEST, WIDEST
    for _ in range(STEPS):
        middle = (low + high) / 2
        answer = ask(endpoint, model, prompt, [(verdicts["Yes"], LIFT), (verdicts["No"], LIFT + middle)])
        assert answer in verdicts, answer
        low, high = (middle, high) if answer == "Yes" else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_served_expert_gives_verdicts_thinkrecs_own_probabilities(finished, tmp_path, recipe):
    project = copy_project(finished, tmp_path / "project", TEXT_ONLY | RECIPES[recipe])
    for stage in ("sft", "experts", "gate"):
        run_stage(project, stage)
    with chdir(project):
        manifest = export(tmp_path / "served", load(), expert=EXPERT)
        loaded, routing = open_finished(load())
    assert not manifest["inputs"] and not manifest["example"]["slots"]
    rows = np.linspace(0, len(loaded.interactions) - 1, ROWS, dtype=np.int64)
    loaded.model.scored = "difference"  # `paper` scores by the logit of Yes alone, of which servers say nothing
    by_adapter = [loaded.probability(rows, weights) for weights in np.eye(routing.weights.shape[1], dtype=np.float32)]
    assert np.abs(by_adapter[EXPERT] - by_adapter[0]).max() > 1e-3  # so it matters which one is served

    model = tmp_path / "served" / manifest["model"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = []
    for row in rows:
        tokens, _ = prompt_of(loaded.layout, int(row))
        prompts.append(tokenizer.decode(tokens))
        assert tokenizer(prompts[-1])["input_ids"] == tokens
    with transformers_serve(model, tmp_path / "home") as endpoint:
        served = [difference(endpoint, model, prompt, manifest["verdicts"]) for prompt in prompts]
    np.testing.assert_allclose(sigmoid(np.asarray(served)), by_adapter[EXPERT], atol=2e-4)
    assert artifacts.read_json(tmp_path / "served" / "manifest.json") == manifest
