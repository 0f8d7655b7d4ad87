"""Alone, nothing is shared out; where models run can be named."""

from thinkrec import processes


def test_the_device_can_be_named(monkeypatch):
    monkeypatch.setenv("THINKREC_DEVICE", "meta")
    assert processes.device().type == "meta"


def test_alone_a_process_has_everything_and_is_the_main_one():
    assert (processes.count(), processes.rank()) == (1, 0)
    assert processes.mine([3, 1, 2]) == processes.gather([3, 1, 2]) == [3, 1, 2]
    assert processes.from_main("value") == "value"
    processes.wait()
