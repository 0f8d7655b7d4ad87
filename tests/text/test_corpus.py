"""What the tiny language model's tokenizer is learned from: train alone."""

import numpy as np
import pandas as pd
import pytest

from tests.project import params_with
from thinkrec.text.corpus import training_texts
from thinkrec.text.question import question_text

TABLE = pd.DataFrame(
    {
        "user": np.zeros(5, np.int32),
        "item": np.asarray([0, 1, 2, 0, 3], np.int32),
        "label": np.asarray([1, 0, 1, 0, 1], np.int8),
        "timestamp": np.arange(5, dtype=np.int64),
        "split": ["train", "train", "train", "train", "test"],
    }
)
ITEMS = pd.DataFrame({"title": ["A", "B", "C", "D"], "description": ["about A", "", "about C", "about D"]})
KEYWORDS = pd.DataFrame({"keywords": [["x", "y"], [], ["z"], ["w"]]})
TRACES = pd.DataFrame({"row": [3, 4], "text": ["No. Twice is enough.", "Yes. Secret."]})


def texts(layout="stream"):
    changes = {"layout": layout, "history": 2, "keywords": 1}
    prompt = params_with({f"prompt.{name}": value for name, value in changes.items()}).prompt
    return training_texts(TABLE, ITEMS, KEYWORDS, TRACES, prompt)


def test_items_of_train_and_their_descriptions_come_first():
    assert texts()[:-1] == ['"A": x', "about A", '"B"', '"C": z', "about C"]


def test_traces_come_last_after_the_words_of_their_prompt():
    assert texts()[-1] == "No. Twice is enough."
    assert texts("question")[-1] == f"{question_text([('', 0), ('', 1)], '')} No. Twice is enough."


@pytest.mark.parametrize("layout", ["stream", "question"])
def test_nothing_is_told_of_what_happens_after_train(layout):
    assert not any("D" in text or "Secret" in text for text in texts(layout))
