"""Bundles: the answers behind a run travel as one file, and give the same traces byte for byte, offline."""

import gzip
import json
import re
from pathlib import Path

import pytest

from tests.project import ROOT, SMALL, digests, run_command, set_params, teacher_project
from tests.teacher.server import Response, serve
from thinkrec.errors import UserError
from thinkrec.teacher.answers import Answer
from thinkrec.teacher.bundle import read_bundle, write_bundle
from thinkrec.teacher.offline import complete
from thinkrec.teacher.store import open_store

KEY = "sk-do-not-share-me"
STORE = Path(".cache/responses.sqlite")
ANSWERS = {
    f"{n:064x}": Answer(
        content=f"Yes. ä{n}\u2028",
        reasoning_content="so",
        refusal="",
        finish_reason="stop",
        prompt_tokens=n,
        completion_tokens=1,
    )
    for n in range(3)
}


@pytest.fixture(autouse=True)
def place_and_key(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THINKREC_STORE", raising=False)
    monkeypatch.setenv("THINKREC_TEACHER_KEY", KEY)


def project(folder, endpoint, changes=None, stages=("ingest", "keywords")):
    """A small project up to its keywords."""
    return teacher_project(folder, {"teacher.endpoint": endpoint} | (changes or {}), *stages)


def run_log(folder):
    return json.loads((folder / ".cache" / "runs.jsonl").read_text().splitlines()[-1])


def fill(answers, store=STORE):
    with open_store(store) as opened:
        opened.put_all(answers.items())


def export(path="b.jsonl.gz"):
    write_bundle(Path(path), STORE, ANSWERS, endpoint="https://host/v1", model="m")
    return Path(path)


@pytest.mark.integration
def test_a_run_is_exported_and_replayed_elsewhere_offline(tmp_path):
    with serve(lambda request: Response(body=complete(request.body))) as teacher:
        ours = project(tmp_path / "ours", teacher.endpoint.replace("//", "//user:pass-word@"))
        made = run_command(ours, "traces")
        asked = len(teacher.heard)
        assert re.search(rf"; sent {asked:,} requests, [\d,]+ tokens \(", made.stdout)
        assert run_log(ours)["requests"] == asked and run_log(ours)["prompt_tokens"] > 0
        assert asked > SMALL["traces.train"]
        with open_store(ours / STORE) as store:
            store.put("0" * 64, ANSWERS["0" * 64])  # of another run
        exported = run_command(ours, "bundle", "export", "b.jsonl.gz")
        assert exported.stdout.startswith(f"bundle: {asked} answers of m in b.jsonl.gz")
        assert len(teacher.heard) == asked
    text = gzip.decompress((ours / "b.jsonl.gz").read_bytes()).decode()
    assert len(text.splitlines()) == asked + 1
    assert KEY not in text and "pass-word" not in text and "user:" not in text

    theirs = project(tmp_path / "theirs", teacher.endpoint)  # whose teacher is gone by now
    (theirs / "b.jsonl.gz").write_bytes((ours / "b.jsonl.gz").read_bytes())
    imported = run_command(theirs, "bundle", "import", "b.jsonl.gz")
    assert imported.stdout.startswith(f"bundle: {asked} answers imported, 0 were there")
    assert run_command(theirs, "traces").exit_code == 0
    made = ("out/traces", "metrics/traces.json")
    assert digests(theirs, *made) == digests(ours, *made)
    assert len(digests(ours, *made)) == 4
    # What they export is what they imported.
    assert run_command(theirs, "bundle", "export", "again.jsonl.gz").exit_code == 0
    assert (theirs / "again.jsonl.gz").read_bytes() == (ours / "b.jsonl.gz").read_bytes()


@pytest.mark.integration
def test_what_a_stopped_run_has_spent_is_in_the_run_log(tmp_path):
    with serve(lambda request: Response(body=complete(request.body))) as teacher:
        ours = project(tmp_path / "ours", teacher.endpoint)
        prices = {"run.prompt_price": 1.0, "run.completion_price": 2.0}
        set_params(ours, {"run.max_requests": 5, **prices})
        stopped = run_command(ours, "traces")
    assert stopped.exit_code == 1
    said = r"all run\.max_requests=5 of this run are sent; what they brought \(5 requests, cost ([\d.]+)\) is in"
    found = re.search(said, stopped.stderr)
    last = run_log(ours)
    assert float(found[1]) > 0
    assert float(found[1]) == pytest.approx(last["cost"], abs=1e-4)
    assert (
        (last["stage"], last["done"], last["requests"]) == ("traces", False, len(teacher.heard)) == ("traces", False, 5)
    )
    assert last["cost"] == pytest.approx((last["prompt_tokens"] + 2 * last["completion_tokens"]) / 1e6)
    assert not (ours / "out" / "traces").exists()


@pytest.mark.integration
def test_a_bundle_holds_the_answers_behind_keywords_too_where_a_teacher_writes_them(tmp_path):
    changes = {"keywords.source": "teacher", "traces.train": 10}
    with serve(lambda request: Response(body=complete(request.body))) as teacher:
        ours = project(tmp_path / "ours", teacher.endpoint, changes)
        about_items = len(teacher.heard)
        assert about_items > 40
        assert run_command(ours, "traces").exit_code == 0
        asked = len(teacher.heard)
        assert asked > about_items
        assert run_command(ours, "bundle", "export", "b.jsonl.gz").stdout.startswith(f"bundle: {asked} answers")
    made = ("out/keywords", "metrics/keywords.json", "out/traces", "metrics/traces.json")

    theirs = project(tmp_path / "theirs", teacher.endpoint, changes, stages=["ingest"])  # whose teacher is gone by now
    (theirs / "b.jsonl.gz").write_bytes((ours / "b.jsonl.gz").read_bytes())
    for arguments in (("bundle", "import", "b.jsonl.gz"), ("keywords",), ("traces",)):
        assert run_command(theirs, *arguments).exit_code == 0
    assert digests(theirs, *made) == digests(ours, *made)
    assert run_command(theirs, "bundle", "export", "again.jsonl.gz").exit_code == 0
    assert (theirs / "again.jsonl.gz").read_bytes() == (ours / "b.jsonl.gz").read_bytes()


@pytest.mark.integration
def test_keywords_cut_short_by_a_cap_go_on_where_they_stopped(tmp_path):
    changes = {"keywords.source": "teacher", "run.max_requests": 9}
    with serve(lambda request: Response(body=complete(request.body))) as teacher:
        folder = project(tmp_path / "ours", teacher.endpoint, changes, stages=["ingest"])
        stopped = run_command(folder, "keywords")
        assert (stopped.exit_code, len(teacher.heard)) == (1, 9)
        assert len(stopped.stderr.splitlines()) == 1
        assert not (folder / "out" / "keywords").exists()
        set_params(folder, {"run.max_requests": None})
        assert run_command(folder, "keywords").exit_code == 0
        stats = json.loads((folder / "metrics" / "keywords.json").read_text())
        assert len(teacher.heard) == stats["asked"] > 9
        assert run_command(folder, "keywords").exit_code == 0
        assert len(teacher.heard) == stats["asked"]


@pytest.mark.integration
def test_a_run_that_is_not_whole_is_not_exported(tmp_path):
    ours = project(tmp_path / "ours", "https://teacher.invalid/v1")
    result = run_command(ours, "bundle", "export", "b.jsonl.gz")
    assert result.exit_code == 1
    assert result.stderr == (
        "bundle: .cache/responses.sqlite: not all answers of this run are here; run the stage that asks for them\n"
    )
    assert not (ours / "b.jsonl.gz").exists()


def test_the_offline_teachers_answers_need_no_bundle(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    result = run_command(tmp_path, "bundle", "export", "b.jsonl.gz")
    assert result.exit_code == 1
    assert "teacher.endpoint is offline" in result.stderr


def test_importing_twice_adds_nothing():
    fill(ANSWERS)
    bundle = export()
    elsewhere = Path("elsewhere.sqlite")
    assert read_bundle(bundle, elsewhere) == (3, 0, {"endpoint": "https://host/v1", "model": "m"})
    assert read_bundle(bundle, elsewhere)[:2] == (0, 3)
    with open_store(elsewhere) as store:
        assert {key: store.get(key) for key in ANSWERS} == ANSWERS


def test_a_bundle_that_contradicts_the_store_changes_nothing():
    fill(ANSWERS)
    bundle, other = export(), Path("other.sqlite")
    key = f"{2:064x}"
    fill({key: ANSWERS[f"{0:064x}"]}, other)
    with pytest.raises(UserError, match="1 of its answers differ") as caught:
        read_bundle(bundle, other)
    assert "\n" not in str(caught.value)
    with open_store(other) as store:
        assert [store.get(one) for one in sorted(ANSWERS)] == [None, None, ANSWERS[f"{0:064x}"]]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: b"no gzip at all", "not a whole bundle"),
        (lambda raw: raw[:-20], "not a whole bundle"),
        (lambda raw: gzip.compress(b"\xff\xfe"), "not a whole bundle"),
        (lambda raw: gzip.compress(gzip.decompress(raw) + b"{oops\n"), "about line 5"),
        (lambda raw: gzip.compress(b"[]\n"), "should be an object"),
        (lambda raw: gzip.compress(b""), "not a bundle of this version"),
        (lambda raw: gzip.compress(b'{"format": "x"}\n'), "not a bundle of this version"),
        (lambda raw: gzip.compress(gzip.decompress(raw) + b'{"key": "x"}\n'), "line 5: a key should be 64"),
        (lambda raw: gzip.compress(gzip.decompress(raw).replace(b'"prompt_tokens": 2', b'"prompt_tokens": "2"')),
         "line 4: an answer should be"),
        (lambda raw: gzip.compress(gzip.decompress(raw).replace(b'"prompt_tokens": 2', b'"prompt_tokens": -2')),
         "line 4: prompt_tokens should be from 0"),
        (lambda raw: gzip.compress(gzip.decompress(raw).replace(b'"content": "', b'"content": "\\ud800')),
         "line 2: .* surrogates not allowed"),
        (lambda raw: gzip.compress(gzip.decompress(raw) + b"[" * 100_000), "about line 5"),
    ],
)  # fmt: skip
def test_a_spoilt_bundle_is_refused_whole_in_one_line(spoil, said):
    fill(ANSWERS)
    bundle = export()
    bundle.write_bytes(spoil(bundle.read_bytes()))
    with pytest.raises(UserError, match=said) as caught:
        read_bundle(bundle, Path("new.sqlite"))
    assert "\n" not in str(caught.value)
    with open_store(Path("new.sqlite")) as store:
        assert [store.get(key) for key in ANSWERS] == [None] * 3


def test_a_bundle_cannot_steer_the_terminal_of_who_imports_it():
    write_bundle(Path("b.jsonl.gz"), STORE, [], endpoint="https://host/\x1b[31mv1", model="m\nm")
    assert read_bundle(Path("b.jsonl.gz"), STORE)[2] == {"endpoint": "https://host/[31mv1", "model": "m m"}


def test_a_bundle_takes_no_folders_place(tmp_path):
    fill(ANSWERS)
    with pytest.raises(UserError, match="cannot be written \\(Is a directory\\); name a file"):
        export(str(tmp_path))


def test_a_missing_bundle_is_a_user_error():
    with pytest.raises(UserError, match="no such file"):
        read_bundle(Path("absent.gz"), STORE)
