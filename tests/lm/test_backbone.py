"""Any model directory is a backbone, if it is whole, safe and what was pinned; ours has the same bytes each time."""

import json
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tests.builders import REASON, TITLES, causal_lm, interactions, layout_of, recommender, tokenizer
from tests.project import params_with
from thinkrec.artifacts import read_json, write_json
from thinkrec.errors import UserError
from thinkrec.lm import loaded
from thinkrec.lm.adapters import add_lora, install_mixture, save_adapter
from thinkrec.lm.backbone import (
    REFERENCE,
    open_backbone,
    pin,
    pin_revision,
    save_model,
)
from thinkrec.lm.families import check_positions
from thinkrec.lm.scoring import score
from thinkrec.lm.tiny import build_tiny
from thinkrec.params import LoraParams, load
from thinkrec.text.vocabulary import find_vocabulary

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IDS = torch.arange(3, 20)[None]


def shape(**changes):
    tiny = {"vocabulary": 320, "hidden": 16, "layers": 2, "heads": 2} | changes
    return params_with({f"backbone.{name}": value for name, value in tiny.items()}).backbone


@pytest.fixture
def folder(tmp_path):
    save_model(causal_lm(), tokenizer(), tmp_path / "model")
    return Path("model")


def refused(message):
    """A block that ends in a line for the user."""
    return pytest.raises(UserError, match=message)


def pin_in(folder, name, **how):
    """The backbone artefact, a reference to this model, written into a folder."""
    write_json(folder / REFERENCE, pin(str(name), **how))
    return folder


@torch.no_grad()
def test_a_model_directory_round_trips_to_the_same_bytes_and_names_no_place(family, tmp_path):
    model, (one, two) = causal_lm(family), (tmp_path / "one", tmp_path / "two")
    save_model(model, tokenizer(), one)
    again, words = open_backbone(one)  # loaded objects remember where they came from
    assert type(again) is type(model)
    assert again(input_ids=IDS).logits.equal(model(input_ids=IDS).logits)
    assert words(REASON)["input_ids"] == tokenizer()(REASON)["input_ids"]
    assert find_vocabulary(words) == find_vocabulary(tokenizer())
    save_model(again, words, two)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path
        assert str(tmp_path).encode() not in path.read_bytes() and path.suffix in {".json", ".safetensors"}


def test_a_pinned_directory_opens_unless_it_has_changed_or_gone(folder):
    pinned = pin_in(Path("out/backbone"), folder)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(read_json(pinned / REFERENCE)["files"])
    assert isinstance(open_backbone(pinned)[0], PreTrainedModel)
    save_model(causal_lm(seed=1), tokenizer(), folder)
    with refused("has changed since it was pinned"):
        open_backbone(pinned)
    folder.rename("moved")
    with refused("model: no such model directory"):
        open_backbone(pinned)


@pytest.mark.parametrize("file", ["chat_template.jinja", "additional_chat_templates/rag.jinja"])
def test_a_changed_chat_template_is_a_changed_model(folder, file):
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text("{{ messages[0]['content'] }}")
    pinned = pin_in(Path("out/backbone"), folder)
    assert file in read_json(pinned / REFERENCE)["files"]
    (folder / file).write_text("Somebody asks: {{ messages[0]['content'] }}")
    with refused("has changed since it was pinned"):
        open_backbone(pinned)


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq", "compressed-tensors"])
def test_quantised_weights_without_the_library_that_reads_them_are_one_line(folder, method):
    config = json.loads((folder / "config.json").read_text())
    quantised = {"quant_method": method, "bits": 4, "group_size": 128}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantised}))
    with refused(rf"^model: its weights are quantised \({method}\), which takes a library that is not installed"):
        open_backbone(folder)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"it has no config\.json"),
        ("model.safetensors", r"no \*\.safetensors"),
        ("tokenizer.json", "model directory without tokenizer"),
    ],
)
def test_a_directory_that_lacks_something_is_refused_and_no_pickle_is_read(folder, missing, message):
    (folder / missing).unlink()
    torch.save(causal_lm().state_dict(), folder / "pytorch_model.bin")
    with refused(message):
        pin(str(folder))
    with refused("^model: "):
        open_backbone(folder)


def test_weights_that_are_not_all_there_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with refused(r"weights lack model\.layers\.2"):
        open_backbone(folder)
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with refused("cannot be loaded"):
        open_backbone(folder)
    with refused("dvc repro backbone"):
        open_backbone(Path("out/backbone"))


def test_a_hub_model_needs_a_pinned_revision():
    with refused("thinkrec pin some/model"):
        pin("some/model")
    Path("models.lock.json").write_text(json.dumps({"some/model": COMMIT}))
    assert pin("some/model") == {"name": "some/model", "revision": COMMIT}
    with refused("thinkrec pin another/model"):
        pin("another/model")


def test_prompts_longer_than_the_positions_are_refused():
    model = causal_lm()
    positions = model.config.max_position_embeddings
    check_positions(model, positions)
    with refused(f"prompt.max_tokens={positions + 1}"):
        check_positions(model, positions + 1)


def test_four_bits_without_bitsandbytes_says_what_to_install(folder, monkeypatch):
    pinned = pin_in(Path("pinned"), folder, load_in_4bit=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with refused(r"needs bitsandbytes; install it with: pip install -e '\.\[quantized\]'"):
        open_backbone(pinned)


def test_a_backbone_in_four_bits_takes_an_adapter_and_the_mixture(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed")
    table = interactions()
    wide, words, _ = build_tiny([*TITLES, REASON], shape(hidden=128), seed=1)
    save_model(wide, words, tmp_path / "model")
    pinned = pin_in(tmp_path / "pinned", tmp_path / "model", load_in_4bit=True)
    model = recommender(table, slots=())
    model.backbone, _ = open_backbone(pinned)
    whole = model.backbone.num_parameters()
    assert whole == wide.num_parameters() and model.backbone.get_memory_footprint() < 2.5 * whole
    layout, rows = layout_of(table), np.arange(12)
    adapter = add_lora(model.backbone, LoraParams(r=2, alpha=4.0, dropout=0.0))
    with torch.no_grad():
        for name, weight in adapter.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 1)
    theirs = score(model, layout, rows)
    save_adapter(adapter, tmp_path / "adapter", base="out/backbone")
    adapter.unload()
    before = score(model, layout, rows)
    install_mixture(model.backbone, [tmp_path / "adapter"])
    ours = score(model, layout, rows)
    assert np.abs(ours - theirs).max() < 0.1 * np.abs(ours - before).max()  # bfloat16 adapters against float32 ones


def test_without_a_network_no_revision_is_pinned_and_one_line_says_so(tmp_path, monkeypatch):
    def refuse(*_):
        raise httpx2.ConnectError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("thinkrec.lm.backbone.HfApi.model_info", refuse)
    with pytest.raises(UserError, match=r"org/model: the hub gave no revision \(\[Errno -3\] Temporary failure"):
        pin_revision("org/model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("precision", "has_bf16", "widened"),
    [("auto", False, True), ("auto", True, False), ("bf16", False, False), ("fp32", True, True)],
)
def test_weights_in_bf16_are_widened_where_nothing_has_instructions_for_it(
    finished, monkeypatch, precision, has_bf16, widened
):
    def open_rounded(path, root):
        model, words = open_backbone(path, root)
        return model.bfloat16(), words

    monkeypatch.setattr(loaded, "open_backbone", open_rounded)
    monkeypatch.setattr(loaded, "has_bf16", lambda: has_bf16)
    monkeypatch.chdir(finished)
    params = load()
    params = params.model_copy(update={"trainer": params.trainer.model_copy(update={"precision": precision})})
    backbone = loaded.open_global(params).model.backbone
    assert backbone.dtype == (torch.float32 if widened else torch.bfloat16)
