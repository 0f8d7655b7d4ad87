"""Layers below the first that differs run once for each sequence, and no score and no weight shows it."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPTNeoXConfig

from tests.builders import features_of, interactions, layout_of, recommender, tokenizer
from tests.lm.work import tune
from thinkrec.experts.training import add_expert
from thinkrec.lm import adapters
from thinkrec.lm.adapters import first_differing, install_mixture, layers_of, save_adapter
from thinkrec.lm.model import RecommenderLM, SlotValues
from thinkrec.lm.scoring import RowWeights, score
from thinkrec.params import LoraParams

LORA = LoraParams(r=2, alpha=4.0, dropout=0.0)
ADAPTED = 2  # of 5 layers
ENOUGH = adapters.LIMIT
TABLE = interactions()
LAYOUT, ROWS = layout_of(TABLE), np.arange(len(TABLE))


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Two experts on disk, of the last layers."""
    folders = [tmp_path_factory.mktemp("experts") / str(seed) for seed in (1, 2)]
    for seed, folder in enumerate(folders):
        adapter = add_expert(recommender(TABLE, layers=5), LORA, layers=ADAPTED)
        torch.manual_seed(seed)
        for name, weight in adapter.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.5)
        save_adapter(adapter, folder, base="none")
    return folders


def mixed(experts):
    """A model with these experts in it, and four routings: each adapter alone, and all of them mixed."""
    model = recommender(TABLE, layers=5)
    batch_weights = install_mixture(model.backbone, [None, *experts])
    drawn = np.random.default_rng(0).dirichlet(np.ones(3), 3).astype(np.float32)
    by_routing = [*(np.eye(3, dtype=np.float32)[[number] * 3] for number in range(3)), drawn]
    return model, [RowWeights(batch_weights, weights, TABLE["user"].to_numpy()) for weights in by_routing]


def passes_by_layer(model):
    """Counts, from now on, of the passes that each layer computes."""
    layers = layers_of(model.backbone)
    counts = [0] * len(layers)

    def count(number):
        counts[number] += 1

    for number, layer in enumerate(layers):
        layer.self_attn.register_forward_hook(lambda *_, number=number: count(number))
    return counts


def test_lower_layers_run_once_for_all_routings_and_scores_keep_their_bytes(experts):
    model, routings = mixed(experts)
    assert first_differing(model.backbone) == 5 - ADAPTED
    plain = [score(model, LAYOUT, ROWS, routing) for routing in routings]
    counts = passes_by_layer(model)
    with model.sharing_layers():
        ours = [score(model, LAYOUT, ROWS, routing) for routing in routings]
    np.testing.assert_array_equal(ours, plain)
    assert np.abs(ours[0] - ours[1]).max() > 1e-2
    assert counts == [1, 1, 1, 5, 5]  # the upper ones once more than needed, to compare
    assert model.shared is None  # nothing is kept for longer


@pytest.mark.parametrize("limit", [0, 4_000, ENOUGH])
def test_an_expert_learns_the_same_however_much_is_kept(limit, monkeypatch):
    monkeypatch.setattr(adapters, "LIMIT", limit)
    learned = []
    for sharing in (False, True):
        model = recommender(TABLE, layers=5)
        torch.manual_seed(0)
        add_expert(model, LORA, layers=ADAPTED)
        counts = passes_by_layer(model)
        with model.sharing_layers() if sharing else nullcontext():
            epochs = tune(TABLE, model, LAYOUT, redraw=False).epochs
        assert (counts[0] < 0.7 * counts[-1]) == (sharing and limit == ENOUGH)  # its epochs have the same windows
        learned.append((epochs, [weight for weight in model.parameters() if weight.requires_grad]))
    assert learned[0][0] == learned[1][0]
    assert all(torch.equal(one, two) for one, two in zip(learned[0][1], learned[1][1], strict=True))


def test_dropout_in_the_layers_that_learn_leaves_the_others_shared():
    model = recommender(TABLE, layers=5)
    add_expert(model, LoraParams(r=2, alpha=4.0, dropout=0.5), layers=ADAPTED)
    counts = passes_by_layer(model)
    with model.sharing_layers():
        tune(TABLE, model, LAYOUT, redraw=False)
    assert counts[0] < 0.7 * counts[-1]


def test_frozen_layers_drop_nothing_out_while_they_are_shared(experts):
    model = recommender(TABLE, layers=5)
    expert = add_expert(model, LoraParams(r=2, alpha=4.0, dropout=0.5), layers=5)
    for name, weight in expert.named_parameters():
        weight.requires_grad_("lora_" in name and ".layers.4." in name)
    batch = LAYOUT.collate(LAYOUT.scoring_windows(ROWS, 0 * ROWS))
    with model.sharing_layers():
        model.train()(batch)
        assert [layer.training for layer in layers_of(model.backbone)] == [False] * 4 + [True]


def test_sequences_in_other_company_score_as_alone(experts):
    model, routings = mixed(experts)
    alone = score(model, LAYOUT, ROWS[:12], routings[1])
    with model.sharing_layers():
        score(model, LAYOUT, ROWS, routings[0])
        counts = passes_by_layer(model)
        assert score(model, LAYOUT, ROWS[:12], routings[1]) == pytest.approx(alone, abs=1e-5)
    assert counts[0] == 0


def test_a_family_whose_upper_layers_take_more_than_hidden_states_is_run_plainly(experts):
    model, routings = mixed(experts)
    layers, beside = layers_of(model.backbone), []
    model.backbone.get_decoder().register_forward_pre_hook(lambda *_: beside.append(0.0))
    layers[0].self_attn.register_forward_hook(lambda _module, _inputs, output: beside.append(output[0].mean()))
    layers[-1].register_forward_hook(lambda _module, _inputs, output: output + beside[-1])
    parts = (ROWS[:24], ROWS[24:])
    plain = [score(model, LAYOUT, part, routings[1]) for part in parts]
    with model.sharing_layers():
        for part, expected in zip((*parts, *parts), (*plain, *plain), strict=True):
            np.testing.assert_array_equal(score(model, LAYOUT, part, routings[1]), expected)
        assert model.shared is not None and not model.shared.lower


@pytest.mark.parametrize("kind", [Gemma2Config, GPTNeoXConfig])  # embeddings that are scaled; layers of another kind
def test_families_with_layers_of_their_own_share_them(kind):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    more = {"head_dim": 8} if kind is Gemma2Config else {}
    config = kind(vocab_size=len(tokenizer()), initializer_range=0.3, pad_token_id=0, **shape, **more)
    backbone = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    layers_of(backbone)[-1].requires_grad_(True)
    model = RecommenderLM(backbone, LAYOUT.vocabulary, SlotValues(features_of(TABLE), ()), None)
    plain = score(model, LAYOUT, ROWS)
    with model.sharing_layers():
        for _ in range(3):
            np.testing.assert_array_equal(score(model, LAYOUT, ROWS), plain)
        assert model.shared is not None and model.shared.checked
