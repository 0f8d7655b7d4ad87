"""Answers for many users at once, items named by title, and a process that is left as it was."""

import logging
import os
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from tests.project import LIKED_AND_NOT
from thinkrec.answers.names import Names
from thinkrec.answers.parts import write_parts
from thinkrec.artifacts import ITEMS, read_table
from thinkrec.errors import UserError
from thinkrec.recommender import Recommender


class TestManyUsers:
    def test_each_gets_what_she_would_alone(self, recommender):
        users = ["u00003", "u00001", "u00040"]
        many = recommender.recommend_many(users, 4)
        assert list(many) == ["user_id", "item_id", "title", "probability"]
        assert many["user_id"].tolist() == [user for user in users for _ in range(4)]
        for user, of_user in many.groupby("user_id"):
            alone = recommender.recommend(user, 4)
            pd.testing.assert_frame_equal(of_user.drop(columns="user_id").reset_index(drop=True), alone, rtol=1e-4)
        assert list(recommender.recommend_many([], 4)) == list(many)

    def test_a_file_of_everybody_goes_on_after_a_kill_to_the_same_bytes(self, recommender, tmp_path, monkeypatch):
        monkeypatch.setattr("thinkrec.recommender.PART_USERS", 16)
        users, rows = recommender.recommend_all(tmp_path / "whole.parquet", 3, shortlist=5)
        assert rows == 3 * users
        whole = pd.read_parquet(tmp_path / "whole.parquet")
        assert whole["user_id"].tolist() == [f"u{number:05d}" for number in range(users) for _ in range(3)]
        asked = []

        def ask(part: list[str], *arguments: int, **options: int) -> pd.DataFrame:
            asked.append(part)
            if len(asked) == 2:
                raise KeyboardInterrupt
            return Recommender.recommend_many(recommender, part, *arguments, **options)

        monkeypatch.setattr(recommender, "recommend_many", ask)
        with pytest.raises(KeyboardInterrupt):
            recommender.recommend_all(tmp_path / "again.parquet", 3, shortlist=5)
        assert not (tmp_path / "again.parquet").exists()
        recommender.recommend_all(tmp_path / "again.parquet", 3, shortlist=5)
        parts = [[f"u{number:05d}" for number in range(first, min(first + 16, users))] for first in range(0, users, 16)]
        assert asked == [parts[0], parts[1], *parts[1:]]  # the first is not made again
        assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
        assert {path.name for path in tmp_path.iterdir()} == {"whole.parquet", "again.parquet"}

    def test_parts_of_other_questions_are_not_taken_for_ours(self, tmp_path):
        schema = pa.schema({"number": pa.int64()})

        def write(made_with: str, stop: int = 9) -> list[int]:
            def make(part: int) -> pd.DataFrame:
                if part == stop:
                    raise KeyboardInterrupt
                return pd.DataFrame({"number": [part + len(made_with)]})

            with suppress(KeyboardInterrupt):
                write_parts(tmp_path / "numbers.parquet", [0, 1], make, schema, made_with=made_with)
            return pd.read_parquet(tmp_path / "numbers.parquet")["number"].tolist() if stop == 9 else []

        write("aa", stop=1)
        assert write("a") == [1, 2]


class TestItemsByTitle:
    def test_a_title_is_as_good_as_an_id(self, recommender, finished):
        titles = read_table(ITEMS, root=finished).set_index("item_id")["title"]
        named = [(f" {titles[item].upper()}", liked) for item, liked in LIKED_AND_NOT]
        pd.testing.assert_frame_equal(recommender.recommend(named, 3), recommender.recommend(LIKED_AND_NOT, 3))
        assert recommender.explain([], titles["i00009"]).item_id == "i00009"

    def test_a_title_of_several_items_wants_its_year_and_one_of_none_gets_suggestions(self):
        items = pd.DataFrame(
            {"item_id": ["1", "2", "3"], "title": ["Heat", "heat", "1"], "year": [1995.0, 1986.0, np.nan]}
        )
        names = Names(pd.DataFrame({"user_id": ["a"]}), items)
        assert names.items(pd.Series(["Heat (1986)", "1", "3.0"])).tolist() == [1, 0, 2]
        with pytest.raises(UserError, match=r"'HEAT': the title of 2 items; name an id: 1 \(1995\), 2 \(1986\)"):
            names.items(pd.Series(["HEAT"]))
        with pytest.raises(UserError, match=r"item 'Heta': unknown; .* did you mean 'heat' \(2\)\?"):
            names.items(pd.Series(["Heta"]))


def test_loading_and_asking_leave_the_process_as_it_was(finished):
    def state() -> tuple[object, ...]:
        loggers = [(name, logging.getLogger(name).level) for name in ("", "transformers", "huggingface_hub")]
        random = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())
        return os.getcwd(), dict(os.environ), loggers, torch.get_num_threads(), torch.is_grad_enabled(), random

    before = state()
    loaded = Recommender.load(finished)
    loaded.recommend("u00003", 2)
    loaded.explain("u00003", "i00009")
    assert state() == before
