"""Likeness by models: BERTScore matches tokens by hand-made states, directories are read from disk or refused."""

import math

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

from thinkrec.errors import UserError
from thinkrec.evaluation.learned import bertscore, bleurt, f1_of_matches, score_likeness

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "the", "user", "liked", "sad", "films", "."]
TEXT = "Yes. The user liked sad films."
NOTHING = {"bertscore": None, "bleurt": None}


@pytest.fixture(scope="module")
def shape():
    torch.manual_seed(0)
    return BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )


def saved(model, folder):
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(shape, tmp_path_factory):
    return saved(BertModel(shape), tmp_path_factory.mktemp("encoder"))


def test_the_best_matches_worked_out_by_hand():
    reason = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    teacher = torch.tensor([[0.0, 1.0]])
    # Precision (0 + .8) / 2, recall .8.
    assert f1_of_matches(reason, teacher) == pytest.approx(2 * 0.4 * 0.8 / (0.4 + 0.8))
    assert f1_of_matches(reason, teacher[:0]) == f1_of_matches(teacher[:0], reason) == 0


def test_a_text_is_most_like_itself(encoder):
    same, other, nothing = bertscore([(TEXT, TEXT), ("No. Films.", TEXT), ("", TEXT)], encoder)
    assert same == pytest.approx(1)
    assert nothing == 0 < other < same


def test_the_rating_is_the_models_own_number_for_the_pair(shape, tmp_path):
    shape.num_labels = 1
    model = BertForSequenceClassification(shape).eval()
    torch.nn.init.constant_(model.classifier.weight, 0)
    torch.nn.init.constant_(model.classifier.bias, 0.25)
    assert bleurt([("No.", TEXT), (TEXT, TEXT)], saved(model, tmp_path / "constant")) == [0.25, 0.25]


def test_without_models_or_texts_nothing_is_computed(encoder):
    assert all(math.isnan(value) for value in score_likeness([TEXT], [TEXT], NOTHING).values())
    assert math.isnan(score_likeness([TEXT], [""], {**NOTHING, "bertscore": encoder})["bertscore"])
    assert score_likeness([TEXT, "No."], [TEXT, ""], {**NOTHING, "bertscore": encoder})["bertscore"] > 0.999


def test_a_folder_without_the_model_is_named(encoder, shape, tmp_path):
    with pytest.raises(UserError, match=rf"^evaluate.bertscore: {tmp_path} is no model directory"):
        score_likeness([TEXT], [TEXT], {**NOTHING, "bertscore": tmp_path})
    with pytest.raises(UserError, match=r"^evaluate.bleurt: .* has no weights classifier"):
        score_likeness([TEXT], [TEXT], {**NOTHING, "bleurt": encoder})
    shape.num_labels = 3
    three = saved(BertForSequenceClassification(shape), tmp_path / "three")
    with pytest.raises(UserError, match=r"has 3 outputs, not one"):
        score_likeness([TEXT], [TEXT], {**NOTHING, "bleurt": three})
