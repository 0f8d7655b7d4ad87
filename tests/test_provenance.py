"""Artefacts that do not belong together are refused, and the message names what differs."""

import pytest

from thinkrec.errors import UserError
from thinkrec.provenance import check_provenance, hash_of, write_provenance


def test_a_hash_is_of_names_and_contents_and_of_nothing_else(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / "one" / "inner" / "a").write_text("x")
    (tmp_path / "two" / "inner" / "a").write_text("x")
    (tmp_path / "three" / "inner" / "b").write_text("x")
    assert hash_of(tmp_path / "one") == hash_of(tmp_path / "two") != hash_of(tmp_path / "three")
    (tmp_path / "two" / "inner" / "a").write_text("y")
    assert hash_of(tmp_path / "one") != hash_of(tmp_path / "two")
    with pytest.raises(UserError, match="no such artefact"):
        hash_of(tmp_path / "nowhere")


def test_a_difference_is_named(tmp_path):
    write_provenance(tmp_path, {"backbone": "a" * 64, "prompt.history": 10})
    check_provenance(tmp_path, {"prompt.history": 10, "backbone": "a" * 64})
    with pytest.raises(UserError, match=r"made with prompt\.history 10 \(here 6\); put that back, or run: dvc repro"):
        check_provenance(tmp_path, {"backbone": "a" * 64, "prompt.history": 6})
    with pytest.raises(UserError, match=r"made with backbone aaaaaaaaaaaa \(here bbbbbbbbbbbb\)"):
        check_provenance(tmp_path, {"backbone": "b" * 64, "prompt.history": 10})
    with pytest.raises(UserError, match=r"made with prompt\.slots None \(here \[\]\)"):
        check_provenance(tmp_path, {"backbone": "a" * 64, "prompt.history": 10, "prompt.slots": []})
    with pytest.raises(UserError, match=r"no such artefact"):
        check_provenance(tmp_path / "nowhere", {})
