"""The house: rooms import only those above them, and none grows beyond what a reader can hold."""

from collections import Counter

from tests.project import PIPELINE, ROOT
from tests.source import imported_files

# The floor plan, from the top.
ROOMS = [
    "errors", "progress", "processes", "sections", "params", "artifacts", "provenance", "figures", "metrics",
    "history", "shown", "synthetic", "ingest",
    "claims", "teacher", "features", "synthesis", "baselines", "text", "lm", "experts", "reasons", "evaluation",
    "report", "campaign", "answers", "recommender", "ranking", "transfer", "card", "export", "serve",
    "terminal", "command", "sharing", "cli",
]  # fmt: skip
LINES = 400
FILES = 12
# What still breaks the rules; nothing new comes in.
UPWARDS = set()
LONG = set()
FULL = {"thinkrec"}
LIBRARY = [path for path in sorted((ROOT / "thinkrec").rglob("*.py")) if path.name != "__init__.py"]
CODE = [path for part in ("benchmarks", "stages", "tests", "thinkrec") for path in sorted((ROOT / part).rglob("*.py"))]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def room_of(path):
    """The room that a file of the library belongs to: its folder or, at the top, the file itself."""
    return path.relative_to(ROOT / "thinkrec").parts[0].removesuffix(".py")


def test_every_file_of_the_library_has_a_room_in_the_plan():
    assert {room_of(path) for path in LIBRARY} <= set(ROOMS)


def test_a_room_imports_only_rooms_above_it():
    upwards = {
        (name_of(path), name_of(imported))
        for path in LIBRARY
        for imported in imported_files(path)
        if ROOMS.index(room_of(imported)) > ROOMS.index(room_of(path))
    }
    assert upwards <= UPWARDS


def test_no_file_is_longer_than_one_reads():
    assert {name_of(path) for path in CODE if len(path.read_text(encoding="utf-8").splitlines()) > LINES} <= LONG


def test_no_room_holds_more_than_a_dozen_files():
    counts = Counter(name_of(path.parent) for path in LIBRARY)
    assert {folder for folder, count in counts.items() if count > FILES} <= FULL


def test_stages_depend_on_rooms():
    for stage, entry in PIPELINE.items():
        files = {dependency for dependency in entry["deps"] if dependency.startswith("thinkrec/")}
        assert not {file for file in files if file.count("/") > 1}, stage
