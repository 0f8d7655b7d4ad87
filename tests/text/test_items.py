"""Item text is plain, short and never holds a special token; the role tokens are roles in any tokenizer."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.builders import TITLES, tokenizer
from thinkrec.errors import UserError
from thinkrec.lm.tiny import build_tokenizer
from thinkrec.shown import LONGEST_KEYWORD, LONGEST_TITLE
from thinkrec.text.items import encode, encode_once, item_text, item_texts
from thinkrec.text.vocabulary import find_vocabulary, tokenizer_hash


def test_item_text_is_the_title_and_its_first_keywords():
    items = pd.DataFrame({"title": ["Alpha", "Beta"]})
    keywords = pd.DataFrame({"keywords": [["sea", "war", "old"], []]})
    assert item_texts(items, keywords, 2) == ['"Alpha": sea, war', '"Beta"']
    assert item_texts(items, keywords, 0) == ['"Alpha"', '"Beta"']


@given(st.text(), st.lists(st.text(), max_size=3))
def test_item_text_is_one_printable_line_of_bounded_length(title, keywords):
    text = item_text(title, keywords)
    assert text.isprintable() and "\n" not in text
    assert len(text) <= 2 + LONGEST_TITLE + len(keywords) * (LONGEST_KEYWORD + 2)


def test_special_tokens_in_text_are_ordinary_text():
    ragged = encode(tokenizer(), ["</s><s>", "Quiet </s> Orchard"])
    assert not set(ragged.tokens.tolist()) & set(tokenizer().all_special_ids)
    assert tokenizer().decode(ragged[0]) == " </s><s>"
    assert ragged.tokens.dtype == np.int32


@given(st.lists(st.text(max_size=8), max_size=5), st.sampled_from([" ", ". "]))
def test_encoded_lists_come_back_each_in_its_place_as_they_continue_a_line(texts, lead):
    ragged = encode(tokenizer(), texts, lead=lead)
    assert ragged.lengths.sum() == len(ragged.tokens)
    for index, text in enumerate(texts):
        assert tokenizer().decode(ragged[index]) == lead + text
        assert ragged.lengths[index] == len(ragged[index])


def words(texts, **special):
    """A tokenizer of whole words."""
    vocabulary = {text: index for index, text in enumerate([*texts, *special.values()])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=texts[0]))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def test_role_tokens_are_found_and_an_end_token_stands_in_for_those_that_are_missing():
    roles = find_vocabulary(words(["a", "No", "Yes"], bos_token="<b>", eos_token="<e>", unk_token="<u>"))
    assert (roles.verdicts, roles.begin, roles.end, roles.slot) == ((1, 2), 3, 4, 5)
    roles = find_vocabulary(words(["a", "No", "Yes"], eos_token="<e>"))
    assert (roles.verdicts, roles.begin, roles.end, roles.slot) == ((1, 2), 3, 3, 3)


@pytest.mark.parametrize(
    ("texts", "special", "message"),
    [(["a"], {"eos_token": "<e>"}, "are the same tokens"), (["a", "No", "Yes"], {}, "no end-of-sequence token")],
)
def test_a_tokenizer_without_verdicts_or_an_end_is_refused(texts, special, message):
    with pytest.raises(UserError, match=message):
        find_vocabulary(words(texts, **special))


def test_encoding_once_is_encoding_and_does_not_ask_the_tokenizer_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = ["Low Tide", "", "Seven Keys"]
    first = encode_once(tokenizer(), texts)
    monkeypatch.setattr("thinkrec.text.items.encode", None)
    again = encode_once(tokenizer(), texts)
    monkeypatch.undo()
    for ragged in (first, again):
        assert ragged.tokens.tolist() == encode(tokenizer(), texts).tokens.tolist()
        assert [list(ragged[at]) for at in range(3)] == [list(encode(tokenizer(), [text])[0]) for text in texts]
    assert not again.tokens.flags.owndata  # mapped, not read

    monkeypatch.chdir(tmp_path)
    assert encode_once(tokenizer(), []).lengths.tolist() == []
    other = build_tokenizer(TITLES, 300)
    assert tokenizer_hash(other) != tokenizer_hash(tokenizer())
    assert other.decode(encode_once(other, texts)[2]) == " Seven Keys"
