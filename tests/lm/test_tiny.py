"""The tiny language model copies before it has learned anything; what it is built of is the same each time."""

from unittest.mock import patch

import pytest
import torch

from tests.builders import REASON, TITLES
from tests.project import params_with
from thinkrec.lm.tiny import build_tiny, build_tokenizer
from thinkrec.text.vocabulary import VERDICTS, find_vocabulary


def shape(**changes):
    sizes = {"vocabulary": 320, "hidden": 128, "layers": 3, "heads": 4} | changes
    return params_with({f"backbone.{name}": value for name, value in sizes.items()}).backbone


def build(seed=3, **changes):
    return build_tiny([*TITLES, REASON], shape(**changes), seed=seed)


@pytest.mark.parametrize("hidden", [128, 160])
def test_what_followed_a_token_is_looked_for(hidden):
    def followed(model):
        model.set_attn_implementation("eager")
        ids = torch.randperm(300, generator=torch.Generator().manual_seed(0))[None, :60].add(3).repeat(1, 2)
        with torch.no_grad():
            seen = model(input_ids=ids, output_attentions=True).attentions[1][0, 0]
        return float(seen[60:-1, 1:61].diagonal().mean())

    assert followed(build(hidden=hidden)[0]) > 0.5
    with patch("thinkrec.lm.tiny.start_copying"):
        assert followed(build(hidden=hidden)[0]) < 0.1


HISTORY = {"Amber Road": True, "Lost Field": False, "Iron Map": True, "Salt House": False, "Blue Wolf": True}
WORDS = {
    "Amber Road": ["calm", "grim"], "Lost Field": ["drama", "slow"], "Iron Map": ["brisk", "western"],
    "Salt House": ["bleak", "war"], "Blue Wolf": ["calm", "western"],
}  # fmt: skip


@pytest.fixture(scope="module")
def reader():
    """Where a fresh model looks from the end of a reason about the last item of a history, by layer and head."""
    items = [f' "{title}": {", ".join(WORDS[title])}</s> {VERDICTS[liked]}' for title, liked in HISTORY.items()]
    line = f"<s>{''.join(items)}. They "
    # Vectors are drawn, and some tokens' are alike by chance: of twelve seeds all heads look where they should in six.
    model, tokenizer, _ = build_tiny([f"{line} liked disliked This is"] * 20, shape(vocabulary=500), seed=4)
    model.set_attn_implementation("eager")

    @torch.no_grad()
    def look(reason, layer, head):
        encoded = tokenizer(line + reason, return_offsets_mapping=True)
        seen = model(input_ids=torch.tensor([encoded["input_ids"]]), output_attentions=True).attentions[layer]
        ends = [end for _, end in encoded["offset_mapping"]]
        return dict(zip(ends, seen[0, head, -1].tolist(), strict=True)), line

    return look


def behind(line, title):
    """Where the quotation mark ends that stands behind an item's verdict."""
    return line.index('"', line.index(VERDICTS[HISTORY[title]], line.index(f'"{title}"'))) + 1


@pytest.mark.parametrize("cue, liked", [("liked", True), ("disliked", False)])
def test_titles_are_looked_for_where_a_verdict_says_that_they_were_liked(reader, cue, liked):
    seen, line = reader(f'{cue} "', 2, 0)
    of = {title: seen[behind(line, title)] for title in list(HISTORY)[:-1]}
    assert sum(share for title, share in of.items() if HISTORY[title] == liked) > 0.6


@pytest.mark.parametrize("title", WORDS)
def test_words_are_looked_for_behind_their_title(reader, title):
    seen, line = reader(f'liked "{title}":', 2, 1)
    start = line.index(f'"{title}"')
    assert sum(seen[line.index(word, start) + len(word)] for word in WORDS[title]) > 0.5


def test_a_titles_last_token_is_looked_for_where_the_first_leads_and_the_targets_title_at_its_verdict(reader):
    seen, line = reader('liked "Amber', 2, 2)
    assert max(seen, key=seen.get) == behind(line, "Amber Road")
    seen, line = reader('liked "Iron Map": brisk. This is "', 2, 3)
    assert max(seen, key=seen.get) == line.rindex("Yes") + len("Yes")


@pytest.mark.parametrize("sizes", [{"layers": 2}, {"heads": 5, "hidden": 160}, {"hidden": 56}], ids=str)
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
