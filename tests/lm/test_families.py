"""Every family's prompts get the logits that `transformers` gives them, with and without adapters, or it is refused."""

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from tests.builders import TITLES, features_of, interactions
from tests.lm.families import KINDS, SHAPE, build, config_of
from thinkrec.errors import UserError
from thinkrec.lm.adapters import add_lora, install_mixture, save_adapter
from thinkrec.lm.families import check_memory, check_positions, lora_sites
from thinkrec.lm.model import RecommenderLM, SlotValues
from thinkrec.lm.scoring import RowWeights, check_passes, score
from thinkrec.params import LoraParams, PromptParams
from thinkrec.text.items import encode
from thinkrec.text.layouts import make_layout

LORA = LoraParams(r=2, alpha=4.0, dropout=0.0)
TABLE = interactions(users=2, rows=9)
ROWS = np.arange(len(TABLE))


def prompts(words, kind="question"):
    prompt = PromptParams(layout=kind, history=3, max_tokens=512, keywords=8, slots=(), soft_tokens=0)
    return make_layout(TABLE, encode(words, TITLES), words, prompt)


def recommender_of(backbone, layout):
    values = SlotValues(features_of(TABLE), ())
    return RecommenderLM(backbone, layout.vocabulary, values, None, scored="yes").eval()


@torch.no_grad()
def spread_lora(adapter):
    torch.manual_seed(1)
    for name, weight in adapter.named_parameters():
        if "lora_" in name:
            weight.normal_(0, 0.3)


@torch.no_grad()
def logits_alone(layout, backbone, row):
    """What `transformers` itself makes of a row's prompt: logits (V,) where its verdict is predicted."""
    (window,) = layout.scoring_windows(np.asarray([row]), np.zeros(1, np.int64))
    batch = layout.collate([window])
    return backbone(input_ids=batch.input_ids).logits[0, batch.verdicts[0, 1]]


@pytest.mark.parametrize("family", KINDS)
def test_a_row_gets_the_logit_that_transformers_gives_its_prompt_also_with_a_lora(family, tmp_path):
    config, words = config_of(family)
    layout, backbone = prompts(words), build(config)
    check_memory(backbone)
    check_positions(backbone, 512)
    model, yes, some = recommender_of(backbone, layout), layout.vocabulary.yes, [0, 5, 8, 17]
    check_passes(model)
    plain = [float(logits_alone(layout, backbone, row)[yes]) for row in some]
    np.testing.assert_allclose(score(model, layout, ROWS)[some], plain, atol=1e-4)
    adapter = add_lora(backbone, LORA, layers=1)
    touched = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in backbone.named_parameters() if "lora_" in name}
    assert touched == set(KINDS[family].targets)
    assert all(".1." in name for name, weight in backbone.named_parameters() if weight.requires_grad)
    spread_lora(adapter)
    theirs = [float(logits_alone(layout, backbone, row)[yes]) for row in some]
    assert np.abs(np.subtract(theirs, plain)).max() > 1e-3
    save_adapter(adapter, tmp_path / "adapter", base="out/backbone")
    adapter.unload()
    mixture = install_mixture(backbone, [None, tmp_path / "adapter"])
    weights = RowWeights(mixture, np.eye(2, dtype=np.float32), ROWS % 2)
    expected = [one if row % 2 else other for row, one, other in zip(some, theirs, plain, strict=True)]
    np.testing.assert_allclose(score(model, layout, ROWS, weights)[some], expected, atol=1e-4)


@pytest.mark.parametrize("family", KINDS)
def test_rows_that_share_a_stream_score_as_they_do_alone(family):
    config, words = config_of(family)
    layout, backbone = prompts(words, "stream"), build(config)
    model = recommender_of(backbone, layout)
    together = score(model, layout, ROWS)
    alone = np.concatenate([score(model, layout, ROWS[[row]]) for row in (4, 12)])
    np.testing.assert_allclose(together[[4, 12]], alone, atol=1e-4)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_prompts_longer_than_layers_look_back_are_refused(family):
    config, _ = config_of(family, sliding_window=100)
    check_positions(build(config), 100)
    with pytest.raises(UserError, match=r"prompt\.max_tokens=101: layers of the backbone look back over 100 tokens"):
        check_positions(build(config), 101)


def test_a_window_that_no_layer_uses_is_none():
    config, _ = config_of("qwen3", sliding_window=100, use_sliding_window=False)
    check_positions(build(config), 512)


STATEFUL = {
    "Lfm2Config": {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_multiple_of": 16},
    "Qwen3NextConfig": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_experts": 2,
        "num_experts_per_tok": 1,
    },
    "MambaConfig": {},
}


@pytest.mark.parametrize("name", STATEFUL)
def test_layers_that_remember_by_a_state_are_refused(name):
    config = getattr(transformers, name)(**SHAPE, vocab_size=60, **STATEFUL[name])
    with pytest.raises(UserError, match="remember by a state instead of attention"):
        check_memory(AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize("fault", ["logits", "mask"])
def test_what_a_model_does_that_is_not_known_here_is_found_by_trial(fault):
    config, words = config_of("llama")
    backbone = build(config)
    model = recommender_of(backbone, prompts(words))
    if fault == "logits":
        forward = backbone.forward

        def warm(**inputs):
            output = forward(**inputs)
            output.logits = output.logits * 1.3
            return output

        backbone.forward = warm
    else:
        inner = backbone.model.forward
        backbone.model.forward = lambda attention_mask=None, **inputs: inner(**inputs)
    with pytest.raises(UserError, match="gives other logits than transformers"):
        check_passes(model)


def test_of_a_model_that_can_also_see_only_the_part_that_reads_is_adapted():
    config, words = config_of("gemma3")
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    seeing = transformers.Gemma3Config(
        text_config=config.to_dict(),
        vision_config={**vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=1,
    )
    backbone, layout = build(seeing), prompts(words)
    assert any("vision" in name and name.endswith("q_proj") for name, _ in backbone.named_modules())
    with pytest.raises(UserError, match="has 2048 positions"):
        check_positions(backbone, 2049)
    model = recommender_of(backbone, layout)
    check_passes(model)
    adapter = add_lora(backbone, LORA)
    changed = [name for name, weight in backbone.named_parameters() if weight.requires_grad]
    assert len(changed) == 8 and all(".language_model.layers." in name for name in changed)
    model.train()
    loss = model(layout.collate(layout.scoring_windows(ROWS[:2], ROWS[:2]))).score.sum()
    loss.backward()
    assert all(weight.grad is not None for weight in adapter.parameters() if weight.requires_grad)


def test_a_family_without_known_projections_is_one_line():
    config = transformers.GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=1)
    with pytest.raises(UserError, match=r"^backbone\.name: a GPT2LMHeadModel has no layers with linear"):
        lora_sites(AutoModelForCausalLM.from_config(config))
