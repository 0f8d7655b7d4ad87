"""Item text is plain, short and never holds a special token; the role tokens are found in any tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.builders import TITLES, tokenizer
from thinkrec.errors import UserError
from thinkrec.lm.backbone import build_tokenizer
from thinkrec.shown import LONGEST_KEYWORD, LONGEST_TITLE
from thinkrec.text.items import encode, encode_once, item_text, item_texts
from thinkrec.text.vocabulary import find_vocabulary, tokenizer_hash


def test_item_text_is_the_title_and_its_first_keywords() -> None:
    items = pd.DataFrame({"title": ["Alpha", "Beta"]})
    keywords = pd.DataFrame({"keywords": [["sea", "war", "old"], []]})
    assert item_texts(items, keywords, 2) == ["Alpha: sea, war", "Beta"]
    assert item_texts(items, keywords, 0) == ["Alpha", "Beta"]


@given(st.text(), st.lists(st.text(), max_size=3))
def test_item_text_is_one_printable_line_of_bounded_length(title: str, keywords: list[str]) -> None:
    text = item_text(title, keywords)
    assert text.isprintable() and "\n" not in text
    assert len(text) <= LONGEST_TITLE + len(keywords) * (LONGEST_KEYWORD + 2)


def test_special_tokens_in_text_are_ordinary_text() -> None:
    ragged = encode(tokenizer(), ["</s><s>", "Quiet </s> Orchard"])
    assert not set(ragged.tokens.tolist()) & set(tokenizer().all_special_ids)
    assert tokenizer().decode(ragged[0]) == " </s><s>"


@given(st.lists(st.text(max_size=8), max_size=5))
def test_encoded_lists_come_back_each_in_its_place(texts: list[str]) -> None:
    ragged = encode(tokenizer(), texts)
    assert ragged.lengths.sum() == len(ragged.tokens)
    for index, text in enumerate(texts):
        assert tokenizer().decode(ragged[index]) == " " + text
        assert ragged.lengths[index] == len(ragged[index])


def test_text_is_encoded_as_it_continues_a_line() -> None:
    assert tokenizer().decode(encode(tokenizer(), ["Why"], lead=". ")[0]) == ". Why"
    assert encode(tokenizer(), []).lengths.tolist() == []


def words(texts: list[str], **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words."""
    vocabulary = {text: index for index, text in enumerate([*texts, *special.values()])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=texts[0]))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def test_role_tokens_with_a_beginning_token() -> None:
    found = find_vocabulary(words(["a", "No", "Yes"], bos_token="<b>", eos_token="<e>", unk_token="<u>"))
    assert (found.no, found.yes, found.begin, found.end, found.slot) == (1, 2, 3, 4, 5)
    assert found.verdicts == (1, 2)


def test_a_model_without_a_beginning_token_begins_with_its_end_token() -> None:
    found = find_vocabulary(words(["a", "No", "Yes"], eos_token="<e>"))
    assert (found.begin, found.end, found.slot) == (3, 3, 3)


def test_verdicts_that_begin_alike_are_refused() -> None:
    with pytest.raises(UserError, match="are the same tokens"):
        find_vocabulary(words(["a"], eos_token="<e>"))


def test_a_tokenizer_without_an_end_is_refused() -> None:
    with pytest.raises(UserError, match="no end-of-sequence token"):
        find_vocabulary(words(["a", "No", "Yes"]))


def test_ragged_tokens_are_compact() -> None:
    assert encode(tokenizer(), ["a"]).tokens.dtype == np.int32


def test_encoding_once_is_encoding_and_does_not_ask_the_tokenizer_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
