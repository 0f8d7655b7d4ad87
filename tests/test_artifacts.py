"""Artefacts are written whole or not at all, in their schema, in bytes that follow from their content."""

import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thinkrec import artifacts
from thinkrec.artifacts import KEYWORDS, PREDICTIONS, SCHEMAS, TRUTH, USERS, atomic, read_table, write_table
from thinkrec.errors import UserError

TABLES = sorted(SCHEMAS)


def example(schema, rows=5):
    """A frame that fits a schema, its values made up."""
    values = {}
    for field in schema:
        if pa.types.is_list(field.type):
            values[field.name] = pd.Series([[f"w{n}"] * (n % 3) for n in range(rows)], dtype=object)
        elif pa.types.is_dictionary(field.type):
            values[field.name] = pd.Categorical([artifacts.SPLITS[n % 3] for n in range(rows)], artifacts.SPLITS)
        elif pa.types.is_string(field.type):
            values[field.name] = [f"text {n}" for n in range(rows)]
        else:
            values[field.name] = np.arange(rows).astype(field.type.to_pandas_dtype())
    return pd.DataFrame(values)


KILLED = 9


def kill_at_step(step):
    """End this process before its call number `step` that removes or renames something in `atomic`."""
    calls = itertools.count(1)

    def killing(function):
        def called(*arguments, **options):
            if next(calls) == step:
                os._exit(KILLED)
            return function(*arguments, **options)

        return called

    for name in ("_remove", "_replace"):
        setattr(artifacts, name, killing(getattr(artifacts, name)))
    os.rename = killing(os.rename)


def names_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class TestAtomicWrites:
    def test_of_several_processes_the_main_ones_counts(self, tmp_path, monkeypatch):
        for rank in ("0", "1", "2"):
            monkeypatch.setenv("RANK", rank)
            with atomic(tmp_path / "made") as partial:
                partial.mkdir()
                (partial / "rank").write_text(rank)
                artifacts.write_json(partial / "inner.json", rank)
                assert artifacts.read_json(partial / "inner.json") == rank  # what it writes it can read until the end
        assert names_in(tmp_path) == {"made", "made/rank", "made/inner.json"}
        assert (tmp_path / "made" / "rank").read_text() == "0"

    def test_a_process_whose_writes_are_thrown_away_has_its_tokens_all_the_same(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        made = np.arange(5, dtype=np.int32), np.asarray([0, 2, 5])
        for rank in ("1", "0", "1"):
            monkeypatch.setenv("RANK", rank)
            tokens, offsets = artifacts.cached_tokens("key", lambda: made)
            assert tokens.tolist() == made[0].tolist() and offsets.tolist() == made[1].tolist()

    def test_half_a_cache_of_tokens_is_made_again_and_none_where_it_cannot_be_written(self, tmp_path):
        made = np.arange(5, dtype=np.int32), np.asarray([0, 2, 5])
        path = tmp_path / artifacts.TOKEN_CACHE / "key.arrow"
        for spoil in (lambda data: data[:100], lambda data: b"", lambda data: data.replace(b"\4\0\0\0", bytes(4))):
            if path.exists():
                path.write_bytes(spoil(path.read_bytes()))
            for make in (lambda: made, pytest.fail):  # the second time it is there
                tokens, offsets = artifacts.cached_tokens("key", make, root=tmp_path)
                assert tokens.tolist() == made[0].tolist() and offsets.tolist() == made[1].tolist()
        (tmp_path / "other" / ".cache").mkdir(parents=True)
        (tmp_path / "other" / artifacts.TOKEN_CACHE).write_text("no folder")
        assert artifacts.cached_tokens("key", lambda: made, root=tmp_path / "other") == made

    def test_whatever_writes_it_a_file_is_as_readable_as_any(self, tmp_path):
        (tmp_path / "plain").write_text("")
        with atomic(tmp_path / "made") as partial:
            (partial / "in").mkdir(parents=True)
            (partial / "in" / "file").touch(0o600)
        artifacts.write_tensors(tmp_path / "tensors", {"x": np.zeros(2)})
        modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
        assert modes == {(tmp_path / "plain").stat().st_mode & 0o777}

    def test_a_file_appears_whole_with_the_folders_above_it(self, tmp_path):
        with atomic(tmp_path / "a" / "b.txt") as partial:
            partial.write_text("new")
            assert not (tmp_path / "a" / "b.txt").exists()
        assert names_in(tmp_path) == {"a", "a/b.txt"}
        assert (tmp_path / "a" / "b.txt").read_text() == "new"

    def test_a_folder_takes_the_place_of_the_old_one_with_all_that_was_in_it(self, tmp_path):
        for number in (1, 2):
            with atomic(tmp_path / "made") as partial:
                partial.mkdir()
                (partial / f"file_{number}").write_text("x")
        assert names_in(tmp_path) == {"made", "made/file_2"}

    @pytest.mark.parametrize(
        "before", [{}, {"made": "old"}, {"made/old": "old"}], ids=["nothing", "a file", "a folder"]
    )
    @pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
    def test_a_failure_leaves_what_was_there_and_nothing_else(self, before, fault, tmp_path):
        for name, text in before.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        with pytest.raises(fault), atomic(tmp_path / "made") as partial:
            partial.mkdir()
            (partial / "half").write_text("half")
            raise fault
        assert {name for name in names_in(tmp_path) if (tmp_path / name).is_file()} == set(before)
        assert all((tmp_path / name).read_text() == text for name, text in before.items())

    @pytest.mark.parametrize("step", range(1, 8))
    def test_a_run_that_is_killed_at_any_step_of_replacing_a_folder_loses_neither_the_old_nor_the_new(
        self, step, tmp_path
    ):
        def replace():
            with atomic(tmp_path / "made") as partial:
                partial.mkdir()
                (partial / "file").write_text("new")

        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "file").write_text("old")
        child = os.fork()
        if not child:
            kill_at_step(step)
            replace()
            os._exit(0)
        assert os.waitpid(child, 0)[1] >> 8 == KILLED
        artifacts.recover(tmp_path)
        assert (tmp_path / "made" / "file").read_text() == ("old" if step < 6 else "new")
        replace()
        assert names_in(tmp_path) == {"made", "made/file"}

    @pytest.mark.parametrize("folder", [False, True])
    def test_what_a_killed_run_left_is_not_in_the_next_one(self, tmp_path, folder):
        left = tmp_path / ".made.partial"
        if folder:
            left.mkdir()
            (left / "half").write_text("half")
        else:
            left.write_text("half")
        with atomic(tmp_path / "made") as partial:
            partial.mkdir()
            (partial / "whole").write_text("whole")
        assert names_in(tmp_path) == {"made", "made/whole"}


class TestTables:
    @pytest.mark.parametrize("rows", [5, 0])
    @pytest.mark.parametrize("path", TABLES, ids=str)
    def test_every_table_comes_back_as_it_was_written(self, path, rows, tmp_path):
        frame = example(SCHEMAS[path], rows)
        write_table(path, frame, root=tmp_path)
        back = read_table(path, root=tmp_path)
        assert list(back.columns) == SCHEMAS[path].names
        for name in frame.columns:
            assert [value if np.isscalar(value) else list(value) for value in back[name]] == frame[name].tolist()

    def test_bytes_follow_from_the_content_alone(self, tmp_path):
        frame = example(SCHEMAS[artifacts.INTERACTIONS], rows=2000)
        other = frame.sample(frac=1, random_state=0).sort_values("user")[frame.columns[::-1]]  # same rows, other index
        other["user"] = other["user"].astype("int64")  # fits the column all the same
        contents = []
        for number, table in enumerate((frame, frame, other)):
            write_table(artifacts.INTERACTIONS, table, root=tmp_path / str(number))
            contents.append((tmp_path / str(number) / artifacts.INTERACTIONS).read_bytes())
        assert contents[0] == contents[1] == contents[2]
        assert b"pandas" not in contents[0]  # its metadata names versions

    @pytest.mark.parametrize(
        ("frame", "said"),
        [
            (pd.DataFrame({"user": [0]}), r"\['user_id'\] are missing"),
            (pd.DataFrame({"user": [0], "user_id": ["a"], "age": [3]}), r"\['age'\] are not in its schema"),
            (pd.DataFrame({"user": ["a"], "user_id": ["a"]}), "user"),
            (pd.DataFrame({"user": [2**40], "user_id": ["a"]}), "not in range"),
            (pd.DataFrame({"user": [0.5], "user_id": ["a"]}), "truncated|user"),
        ],
    )
    def test_what_does_not_fit_the_schema_is_not_written(self, frame, said, tmp_path):
        with pytest.raises((ValueError, TypeError), match=said):
            write_table(USERS, frame, root=tmp_path)
        assert not names_in(tmp_path)

    def test_only_open_schemas_take_further_columns(self, tmp_path):
        frame = example(SCHEMAS[PREDICTIONS]).assign(ours=np.float32(0.5))
        write_table(PREDICTIONS, frame, root=tmp_path)
        assert read_table(PREDICTIONS, root=tmp_path)["ours"].dtype == np.float32

    @pytest.mark.parametrize("path", TABLES, ids=str)
    def test_a_table_that_is_not_there_names_the_stage_to_run(self, path, tmp_path):
        with pytest.raises(UserError, match=rf"no such artefact; run its stage first: dvc repro {path.parts[1]}$"):
            read_table(path, root=tmp_path)

    @pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped"])
    def test_a_damaged_table_is_told_in_one_line(self, damage, tmp_path):
        write_table(KEYWORDS, example(SCHEMAS[KEYWORDS], rows=500), root=tmp_path)
        path = tmp_path / KEYWORDS
        whole = path.read_bytes()
        path.write_bytes(
            {
                "empty": b"",
                "text": b"not a table\n" * 50,
                "truncated": whole[: len(whole) // 2],
                "flipped": whole[:40] + bytes(byte ^ 255 for byte in whole[40:120]) + whole[120:],
            }[damage]
        )
        with pytest.raises(UserError, match="not a readable parquet file") as caught:
            read_table(KEYWORDS, root=tmp_path)
        assert str(caught.value).endswith("; rerun its stage: dvc repro keywords")

    @pytest.mark.parametrize(
        "schema",
        [pa.schema({"probability": pa.float32()}), pa.schema({"probability": pa.float64(), "reason": "string"})],
    )
    def test_a_table_of_another_schema_is_not_taken(self, schema, tmp_path):
        (tmp_path / TRUTH).parent.mkdir(parents=True)
        pq.write_table(schema.empty_table(), tmp_path / TRUTH)
        with pytest.raises(UserError, match=r"column (probability|reason) should be"):
            read_table(TRUTH, root=tmp_path)


class TestJson:
    def test_json_is_readable_and_comes_back(self, tmp_path):
        value = {"b": [1, 2.5, None], "a": "é"}
        artifacts.write_json(tmp_path / "x.json", value)
        text = (tmp_path / "x.json").read_text(encoding="utf-8")
        assert text.index('"b"') < text.index('"a"')  # as given
        assert text.endswith("}\n")
        assert "é" in text
        assert artifacts.read_json(tmp_path / "x.json") == value

    def test_what_json_cannot_hold_is_not_half_written(self, tmp_path):
        artifacts.write_json(tmp_path / "x.json", 1)
        for value in (float("nan"), {"a": object()}):
            with pytest.raises((ValueError, TypeError)):
                artifacts.write_json(tmp_path / "x.json", value)
        assert names_in(tmp_path) == {"x.json"}
        assert artifacts.read_json(tmp_path / "x.json") == 1

    def test_metrics_are_rounded_and_nan_becomes_null(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        values = {"auc": np.float32(0.123456), "n": np.int64(3), "none": float("nan"), "deep": [{"x": (1.00004, True)}]}
        artifacts.write_metrics("gate", values)
        assert artifacts.read_json(Path("out/gate/measures.json")) == {
            "auc": 0.1235,
            "n": 3,
            "none": None,
            "deep": [{"x": [1.0, True]}],
        }

    def test_metrics_are_the_headlines_of_what_was_measured_in_their_own_order(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        measured = {"valid": {"auc": 0.6}, "test": {"ndcg@5": 0.7, "uauc": 0.8, "auc": 0.9}, "reasons": {"words": 9}}
        artifacts.write_metrics("evaluate", measured, "test.auc", "test.*", "valid.auc")
        metrics = artifacts.read_json(Path("metrics/evaluate.json"))
        assert [(split, list(figures)) for split, figures in metrics.items()] == [
            ("test", ["auc", "ndcg@5", "uauc"]),
            ("valid", ["auc"]),
        ]

    @pytest.mark.parametrize(
        ("path", "stage"),
        [("metrics/gate.json", "gate"), ("out/sft/slots.json", "sft"), ("out/backbone/reference.json", "backbone")],
    )
    def test_json_that_is_not_there_names_the_stage_to_run(self, path, stage, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=rf"run its stage first: dvc repro {stage}$"):
            artifacts.read_json(Path(path))

    @pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
    def test_damaged_json_is_told_in_one_line(self, content, tmp_path):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(UserError, match="not valid JSON"):
            artifacts.read_json(tmp_path / "x.json")


def test_keyword_lists_are_cut_to_the_limit():
    keywords = pd.DataFrame({"item": [0, 1, 2], "keywords": [["a", "b", "c"], [], ["d"]]})
    assert artifacts.keyword_lists(keywords, 2) == [["a", "b"], [], ["d"]]
    assert artifacts.keyword_lists(keywords, 0) == [[], [], []]
