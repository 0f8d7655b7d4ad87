"""Trackers see every epoch of training, and what is trained does not depend on them."""

from types import SimpleNamespace

import pytest

from tests.lm.test_trainer import Objective, run
from tests.project import run_params
from thinkrec.errors import UserError
from thinkrec.lm.trainer import resumable


def test_each_epoch_is_reported_to_the_trackers_named_and_changes_nothing(monkeypatch):
    reports = []

    class Tracker:
        requires_logging_directory = False

        def __init__(self, name):
            self.name, self.start, self.finish = name, lambda: None, lambda: reports.append("finished")

        def log(self, measures, step):
            reports.append((self.name, step, measures))

    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [SimpleNamespace(value="mine")])
    monkeypatch.setattr("accelerate.tracking.LOGGER_TYPE_TO_CLASS", {"mine": Tracker})
    with resumable(run_params(report_to=["mine"])):
        result = run(reporting := Objective())
    assert reports == [*(("phase", 5 * epoch["epoch"], epoch) for epoch in result.epochs), "finished"]
    run(plain := Objective())
    assert reporting.weight.equal(plain.weight)
    with resumable(run_params(report_to=["mime"])), pytest.raises(UserError, match=r"no tracker 'mime' here \(mine is"):
        run(Objective())
