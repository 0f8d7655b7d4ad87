"""Bundles: the answers behind a run travel as one file, and give the same traces byte for byte, offline."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.project import ROOT, SMALL, digests, run_command, set_params, teacher_project
from tests.teacher.asking import KEY, STORE
from tests.teacher.server import Response, serve
from thinkrec.errors import UserError
from thinkrec.teacher.answers import Answer
from thinkrec.teacher.bundle import read_bundle, write_bundle
from thinkrec.teacher.offline import complete
from thinkrec.teacher.store import open_store

ANSWERS = {
    f"{n:064x}": Answer(content=f"Yes. ä{n}\u2028", reasoning_content="so", prompt_tokens=n, completion_tokens=1)
    for n in range(3)
}
BUNDLE = Path("b.jsonl.gz")


def project(folder, endpoint, stages=("ingest", "keywords"), **changes):
    return teacher_project(folder, {"teacher.endpoint": endpoint, **changes}, *stages)


def serve_offline():
    """The offline teacher behind an address."""
    return serve(lambda request: Response(body=complete(request.body)))


def read_store(store):
    with open_store(Path(store)) as answers:
        return [answers.get(key) for key in ANSWERS]


@pytest.fixture
def bundle():
    """A bundle of ANSWERS."""
    with open_store(STORE) as store:
        store.put_all(ANSWERS.items())
    write_bundle(BUNDLE, STORE, ANSWERS, endpoint="https://host/v1", model="m")
    return BUNDLE


@pytest.mark.integration
def test_a_run_is_exported_and_replayed_elsewhere_offline(tmp_path):
    changes = {"keywords.source": "teacher"}
    with serve_offline() as teacher:
        ours = project(tmp_path / "ours", teacher.endpoint.replace("//", "//user:pass-word@"), **changes)
        about_items = len(teacher.heard)
        assert about_items > 40
        result = run_command(ours, "traces")
        asked = len(teacher.heard)
        assert re.search(rf"; sent {asked - about_items:,} requests, [\d,]+ tokens \(", result.stdout)
        assert asked - about_items > SMALL["traces.train"]
        with open_store(ours / STORE) as store:
            store.put("0" * 64, ANSWERS["0" * 64])  # of another run
        exported = run_command(ours, "bundle", "export", "b.jsonl.gz")
        assert exported.stdout.startswith(f"bundle: {asked} answers of m in b.jsonl.gz")
        assert len(teacher.heard) == asked
    text = gzip.decompress((ours / BUNDLE).read_bytes()).decode()
    assert len(text.splitlines()) == asked + 1
    assert KEY not in text and "pass-word" not in text and "user:" not in text

    theirs = project(tmp_path / "theirs", teacher.endpoint, ["ingest"], **changes)  # whose teacher is gone by now
    (theirs / BUNDLE).write_bytes((ours / BUNDLE).read_bytes())
    imported = run_command(theirs, "bundle", "import", "b.jsonl.gz")
    assert imported.stdout.startswith(f"bundle: {asked} answers imported, 0 were there")
    assert run_command(theirs, "keywords").exit_code == run_command(theirs, "traces").exit_code == 0
    artefacts = ("out/keywords", "metrics/keywords.json", "out/traces", "metrics/traces.json")
    assert digests(theirs, *artefacts) == digests(ours, *artefacts)
    # What they export is what they imported.
    assert run_command(theirs, "bundle", "export", "again.jsonl.gz").exit_code == 0
    assert (theirs / "again.jsonl.gz").read_bytes() == (ours / BUNDLE).read_bytes()


@pytest.mark.integration
def test_what_a_stopped_run_has_spent_is_in_the_run_log_and_the_next_goes_on(tmp_path):
    changes = {"keywords.source": "teacher", "run.max_requests": 9}
    prices = {"run.prompt_price": 1.0, "run.completion_price": 2.0}
    with serve_offline() as teacher:
        folder = project(tmp_path / "ours", teacher.endpoint, ["ingest"], **changes, **prices)
        stopped = run_command(folder, "keywords")
        assert (stopped.exit_code, len(teacher.heard), len(stopped.stderr.splitlines())) == (1, 9, 1)
        assert not (folder / "out" / "keywords").exists()
        line = r"all run\.max_requests=9 of this run are sent; what they brought \(9 requests, cost ([\d.]+)\) is in"
        cost = float(re.search(line, stopped.stderr)[1])
        last = json.loads((folder / ".cache" / "runs.jsonl").read_text().splitlines()[-1])
        assert (last["stage"], last["done"], last["requests"]) == ("keywords", False, 9)
        assert 0 < cost == pytest.approx(last["cost"], abs=1e-4)
        assert last["cost"] == pytest.approx((last["prompt_tokens"] + 2 * last["completion_tokens"]) / 1e6)
        set_params(folder, {"run.max_requests": None})
        for _ in range(2):
            assert run_command(folder, "keywords").exit_code == 0
            stats = json.loads((folder / "metrics" / "keywords.json").read_text())
            assert len(teacher.heard) == stats["asked"] > 9


@pytest.mark.integration
def test_a_run_that_is_not_whole_is_not_exported(tmp_path):
    ours = project(tmp_path / "ours", "https://teacher.invalid/v1")
    result = run_command(ours, "bundle", "export", "b.jsonl.gz")
    assert result.exit_code == 1
    assert result.stderr == (
        "bundle: .cache/responses.sqlite: not all answers of this run are here; run the stage that asks for them\n"
    )
    assert not (ours / BUNDLE).exists()


def test_the_offline_teachers_answers_need_no_bundle(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    result = run_command(tmp_path, "bundle", "export", "b.jsonl.gz")
    assert result.exit_code == 1
    assert "teacher.endpoint is offline" in result.stderr


def test_importing_twice_adds_nothing(bundle):
    header = {"endpoint": "https://host/v1", "model": "m"}
    assert read_bundle(bundle, Path("elsewhere.sqlite")) == (Counter(new=3), header)
    assert read_bundle(bundle, Path("elsewhere.sqlite")) == (Counter(same=3), header)
    assert read_store("elsewhere.sqlite") == list(ANSWERS.values())


def test_a_bundle_that_contradicts_the_store_changes_nothing(bundle):
    with open_store(Path("other.sqlite")) as store:
        store.put(f"{2:064x}", Answer(content="No."))
    with pytest.raises(UserError, match="1 of its answers differ"):
        read_bundle(bundle, Path("other.sqlite"))
    assert read_store("other.sqlite") == [None, None, Answer(content="No.")]


def edit(change):
    """A change of a bundle's text."""
    return lambda raw: gzip.compress(change(gzip.decompress(raw)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: b"no gzip at all", "not a whole bundle"),
        (lambda raw: raw[:-20], "not a whole bundle"),
        (edit(lambda text: b"\xff\xfe"), "not a whole bundle"),
        (edit(lambda text: text + b"{oops\n"), "line 5: all of it: Invalid JSON"),
        (edit(lambda text: text + b"[" * 100_000), "line 5: all of it: Invalid JSON"),
        (edit(lambda text: b"[]\n"), "not a bundle of this version"),
        (edit(lambda text: b""), "not a bundle of this version"),
        (edit(lambda text: b'{"format": "x"}\n'), "not a bundle of this version"),
        (edit(lambda text: text + b'{"key": "x"}\n'), "line 5: key: String should match"),
        (edit(lambda text: text.replace(b'"prompt_tokens": 2', b'"prompt_tokens": "2"')),
         "line 4: answer.prompt_tokens: Input should be a valid integer"),
        (edit(lambda text: text.replace(b'"prompt_tokens": 2', b'"prompt_tokens": -2')),
         "line 4: answer.prompt_tokens: Input should be greater than"),
        (edit(lambda text: text.replace(b'"content": "', b'"content": "\\ud800')), "line 2: all of it: Invalid JSON"),
    ],
)  # fmt: skip
def test_a_spoilt_bundle_is_refused_whole_in_one_line(bundle, spoil, said):
    bundle.write_bytes(spoil(bundle.read_bytes()))
    with pytest.raises(UserError, match=said):
        read_bundle(bundle, Path("new.sqlite"))
    assert read_store("new.sqlite") == [None] * 3


def test_a_bundle_cannot_steer_the_terminal_of_who_imports_it():
    write_bundle(BUNDLE, STORE, [], endpoint="https://host/\x1b[31mv1", model="m\nm")
    assert read_bundle(BUNDLE, STORE)[1] == {"endpoint": "https://host/[31mv1", "model": "m m"}


def test_a_bundle_takes_no_folders_place(tmp_path):
    with pytest.raises(UserError, match="cannot be written \\(Is a directory\\); name a file"):
        write_bundle(tmp_path, STORE, [], endpoint="", model="")


def test_a_missing_bundle_is_a_user_error():
    with pytest.raises(UserError, match="no such file"):
        read_bundle(Path("absent.gz"), STORE)
