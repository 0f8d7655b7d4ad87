"""The tiny language model copies before it has learned anything; what it is built of is the same each time."""

from unittest.mock import patch

import pytest
import torch

from tests.builders import REASON, TITLES, params_with
from thinkrec.lm.tiny import build_tiny, build_tokenizer
from thinkrec.text.vocabulary import VERDICTS, find_vocabulary


def shape(**changes):
    sizes = {"vocabulary": 320, "hidden": 112, "layers": 3, "heads": 4} | changes
    return params_with({f"backbone.{name}": value for name, value in sizes.items()}).backbone


def build(seed=3, **changes):
    return build_tiny([*TITLES, REASON], shape(**changes), seed=seed)


@torch.no_grad()
def copied(model):
    """The share of tokens that are predicted where random ones come a second time."""
    ids = torch.randint(3, model.config.vocab_size, (4, 60), generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    return float((model(input_ids=ids).logits.argmax(-1)[:, 60:-1] == ids[:, 61:]).float().mean())


@pytest.mark.parametrize("hidden, heads", [(112, 4), (96, 3)])
def test_what_was_said_once_is_said_again(hidden, heads):
    assert copied(build(hidden=hidden, heads=heads)[0]) > 0.5
    with patch("thinkrec.lm.tiny.start_copying"):
        assert copied(build(hidden=hidden, heads=heads)[0]) < 0.1


@torch.no_grad()
def test_a_named_word_leads_to_where_it_stands_and_that_to_its_title():
    items = {"Amber Road": ["calm", "grim"], "Lost Field": ["drama", "slow"], "Iron Map": ["brisk", "western"]}
    line = "".join(f' "{title}": {", ".join(words)} | Yes' for title, words in items.items())
    model, tokenizer, _ = build_tiny([f"{line} Liked in Blue Wolf"] * 20, shape(vocabulary=500), seed=3)
    model.set_attn_implementation("eager")
    on_word = []
    for title, words in items.items():
        for word in words:
            text = f'<s>{line} "Blue Wolf": {word} | Yes. Liked {word} in "'
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            seen = model(input_ids=ids, output_attentions=True).attentions
            (named,) = tokenizer(f" {word}")["input_ids"]
            on_word.append(float(seen[2][0, 0, -1][ids[0] == named].sum()))
            at = int(seen[1][0, 1, int((ids[0] == named).nonzero()[0])].argmax())
            assert tokenizer.decode(ids[0, at]) == title.split()[0]
    assert sum(on_word) / len(on_word) > 0.6


@pytest.mark.parametrize("sizes", [{"layers": 2}, {"heads": 2}, {"hidden": 48}], ids=str)
def test_a_model_without_room_for_such_heads_is_an_ordinary_one(sizes):
    started = build(**sizes)[0].state_dict()
    with patch("thinkrec.lm.tiny.start_copying"):
        assert all(weight.equal(started[name]) for name, weight in build(**sizes)[0].state_dict().items())


def test_it_is_the_same_each_time_and_reads_by_other_vectors_than_it_predicts_by():
    """Yes and No are predicted in the same places and say opposite things where they are read."""
    (one, words, sizes), (two, *_), (other, *_) = build(), build(), build(seed=4)
    weights = [model.state_dict()["model.layers.1.mlp.up_proj.weight"] for model in (one, two, other)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
    assert sizes["parameters"] == sum(weight.numel() for weight in one.parameters())
    assert sizes["vocabulary"] == len(words) == one.config.vocab_size
    assert one.get_input_embeddings().weight.data_ptr() != one.get_output_embeddings().weight.data_ptr()


@pytest.mark.parametrize("texts", [[], TITLES, ["a b c " * 300, REASON * 40]], ids=["none", "titles", "long"])
def test_verdicts_are_single_tokens_whatever_the_text(texts):
    words = build_tokenizer(texts, 300)
    assert len(words) <= 300
    for verdict in VERDICTS:
        (token,) = words(f" {verdict}", add_special_tokens=False)["input_ids"]
        assert words.decode([token]) == f" {verdict}"
    assert find_vocabulary(words).begin == words.bos_token_id
    assert words.decode(words(" Ünïcode 東京", add_special_tokens=False)["input_ids"]) == " Ünïcode 東京"
