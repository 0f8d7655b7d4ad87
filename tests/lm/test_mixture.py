"""The mixture equals merged weights, sample by sample; experts are plain PEFT directories that anyone can load."""

import copy
import json
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from tests.builders import causal_lm, interactions, layout_of, recommender
from tests.lm.work import lora_names, trainable
from thinkrec.errors import UserError
from thinkrec.experts.training import add_expert, expert_folder
from thinkrec.lm.adapters import BatchWeights, MixtureLinear, add_lora, install_mixture, read_lora, save_adapter
from thinkrec.lm.scoring import RowWeights, score
from thinkrec.params import LoraParams

BASE = "out/sft/model"
WEIGHTS = [[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.1, 0.9]]


def lora(**changes):
    return LoraParams(**({"r": 4, "alpha": 8.0, "dropout": 0.05} | changes))


def randomised(expert, seed):
    """An expert in which all that trains is no longer what it was, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in expert.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return expert


def write_expert(folder, backbone, seed, *, layers=1, **changes):
    """A saved random expert for (a copy of) `backbone`."""
    model = recommender(interactions())
    model.backbone = copy.deepcopy(backbone)
    save_adapter(randomised(add_expert(model, lora(**changes), layers=layers), seed), folder, base=BASE)
    return folder


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Two experts of different ranks, scalings and depths."""
    root, backbone = tmp_path_factory.mktemp("experts"), causal_lm()
    return [
        write_expert(expert_folder(root, 1), backbone, 1),
        write_expert(expert_folder(root, 2), backbone, 2, layers=2, r=3, alpha=6.5),
    ]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A global adapter on three layers, and two experts that are copies of it but for the last layer."""
    root = tmp_path_factory.mktemp("copies")
    model = recommender(interactions(), layers=3)
    folders = [root / "adapter", expert_folder(root, 1), expert_folder(root, 2)]
    for seed, folder in enumerate(folders):
        start = folders[0] if seed else None
        expert = add_expert(model, lora(), layers=1, global_adapter=start) if seed else add_lora(model.backbone, lora())
        assert not seed or trainable(model) == lora_names(2)
        save_adapter(randomised(expert, seed), folder, base=BASE)
        expert.unload()
    return folders


def merged(adapters, weights, layers=2):
    """The backbone with sum_n w_n s_n B_n A_n added into its weights."""
    backbone = causal_lm(layers=layers)
    modules = dict(backbone.named_modules())
    with torch.no_grad():
        for folder, weight in zip(adapters, weights, strict=True):
            for name, (a, b, scaling) in (read_lora(folder) if folder else {}).items():
                modules[name].weight += weight * scaling * b @ a
    return backbone


@torch.no_grad()
def logits(backbone, rows=slice(None)):
    ids = torch.randint(3, 300, (len(WEIGHTS), 9), generator=torch.Generator().manual_seed(0))
    return backbone(input_ids=ids[rows]).logits


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["zero adapter", "copies of the global adapter"])
def test_a_mixed_batch_equals_every_samples_own_merged_weights_and_its_own_score_alone(kind, experts, copies):
    adapters, layers = ([None, *experts], 2) if kind == "zero adapter" else (copies, 3)
    backbone = causal_lm(layers=layers)
    batch_weights = install_mixture(backbone, adapters)
    batch_weights.tensor = torch.tensor(WEIGHTS)
    together, plain = logits(backbone), logits(causal_lm(layers=layers))
    for row, weights in enumerate(WEIGHTS):
        assert_same(together[[row]], logits(merged(adapters, weights, layers), slice(row, row + 1)))
        batch_weights.tensor = torch.tensor([weights])
        assert_same(together[[row]], logits(backbone, slice(row, row + 1)))
    assert (together[0] - plain[0]).abs().max() > 1e-2
    if kind == "zero adapter":
        assert_same(together[2], plain[2])


def test_peft_loads_an_expert_and_agrees_with_the_mixture(experts):
    backbone = causal_lm()
    batch_weights = install_mixture(backbone, [None, *experts])
    for column, folder in enumerate(experts, 1):
        batch_weights.tensor = torch.eye(3)[[column] * len(WEIGHTS)]
        assert_same(logits(backbone), logits(PeftModel.from_pretrained(causal_lm(), str(folder)).eval()))


def test_only_touched_layers_are_replaced_and_all_is_frozen(experts):
    backbone = causal_lm()
    install_mixture(backbone, [None, *experts])
    replaced = {name for name, module in backbone.named_modules() if isinstance(module, MixtureLinear)}
    assert replaced == {f"model.layers.{layer}.self_attn.{name}" for layer in (0, 1) for name in ("q_proj", "v_proj")}
    assert backbone.model.layers[0].self_attn.q_proj.share.argmax(0).tolist() == [2] * 3
    assert backbone.model.layers[1].self_attn.v_proj.share.argmax(0).tolist() == [1] * 4 + [2] * 3
    assert not any(weight.requires_grad for weight in backbone.parameters())


def test_a_layer_that_all_experts_share_costs_one_adapter(copies):
    for before, shared in (([], True), ([None], False)):  # behind the zero adapter, what is the same is weighed
        backbone = causal_lm(layers=3)
        install_mixture(backbone, [*before, *copies])
        layers = [layer.self_attn.q_proj for layer in backbone.model.layers]
        assert [(len(layer.down), layer.shared) for layer in layers] == [(4, shared), (4, shared), (12, False)]
    assert layers[0].share.tolist() == [[0.0] * 4, *[[1.0] * 4] * 3]


def test_gate_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    adapters = {1: (torch.randn(2, 5), torch.randn(4, 2), 0.5), 2: (torch.randn(3, 5), torch.randn(4, 3), 2.0)}
    batch_weights = BatchWeights()
    layer = MixtureLinear(nn.Linear(5, 4).double(), adapters, batch_weights, columns=3)
    x = torch.randn(2, 3, 5, dtype=torch.float64)

    def loss(weights):
        batch_weights.tensor = weights
        return layer(x).square().sum()

    weights = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (weights,))
    loss(weights).backward()
    assert weights.grad is not None
    assert weights.grad[:, 0].tolist() == [0, 0]  # no adapter, no say
    assert (weights.grad[:, 1:] != 0).all()


def test_routed_scores_are_those_of_each_rows_own_merged_model(experts):
    table = interactions()
    layout, rows = layout_of(table), np.arange(36)
    state_of_row = np.random.default_rng(0).integers(0, 3, 36).astype(np.int32)
    model = recommender(table)
    batch_weights = install_mixture(model.backbone, [None, *experts])
    scores = score(model, layout, rows, RowWeights(batch_weights, np.asarray(WEIGHTS[:3], np.float32), state_of_row))
    for state, weights in enumerate(WEIGHTS[:3]):
        plain = recommender(table)
        plain.backbone = merged([None, *experts], weights)
        mine = rows[state_of_row == state]
        assert scores[mine] == pytest.approx(score(plain, layout, mine), abs=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "lora_only"},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 2}},
        {"modules_to_save": ["lm_head"]},
        {"lora_bias": True},
    ],
    ids=lambda kind: next(iter(kind)),
)
def test_adapters_that_are_no_weighted_sum_are_refused(tmp_path, kind):
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        get_peft_model(causal_lm(), config).save_pretrained(str(tmp_path))
    with pytest.raises(UserError, match="only plain LoRA adapters"):
        read_lora(tmp_path)


def test_a_folder_without_an_adapter_or_with_one_for_other_layers_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a PEFT adapter directory"):
        read_lora(tmp_path / "nowhere")
    folder = write_expert(tmp_path / "expert", causal_lm(layers=3), 1)
    with pytest.raises(UserError, match="which this backbone has not"):
        install_mixture(causal_lm(layers=2), [None, folder])
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")  # a pickle is not read
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        read_lora(folder)
    with pytest.raises(UserError, match=r"experts\.layers=3: the backbone has only 2 layers"):
        add_expert(recommender(interactions()), lora(), layers=3)


def test_a_fresh_expert_changes_nothing_and_can_be_taken_out_for_the_next():
    table = interactions()
    model, layout, rows = recommender(table), layout_of(table), np.arange(36)
    before, names = score(model, layout, rows), set(model.state_dict())
    first = randomised(add_expert(model, lora(), layers=1), 1)
    assert np.abs(score(model, layout, rows) - before).max() > 1e-2
    first.unload()
    assert set(model.state_dict()) == names
    assert (score(model, layout, rows) == before).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # peft warns where it finds remains of another adapter
        add_expert(model, lora(), layers=2)
    assert score(model, layout, rows) == pytest.approx(before, abs=1e-6)
    assert trainable(model) == lora_names(0, 1)


def test_saved_experts_have_the_same_bytes_each_time_and_name_no_place(tmp_path):
    one, two = (write_expert(tmp_path / name, causal_lm(), 5) for name in ("one", "two"))
    assert sorted(path.name for path in one.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()
    config = json.loads((one / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert config["layers_to_transform"] == [1]
    assert config["base_model_name_or_path"] == BASE
    assert list(config) == sorted(config)
