"""Progress of long loops in a log that is no terminal (that of a test is none)."""

import re
import time

from thinkrec import progress
from thinkrec.progress import track


def written_until(capsys, is_enough):
    """What stderr holds as soon as it is enough; fails after a minute."""
    text, end = "", time.monotonic() + 60
    while not is_enough(text):
        assert time.monotonic() < end, text
        text += capsys.readouterr().err
        time.sleep(0.01)
    return text


def test_a_log_says_what_how_far_and_how_much_longer_while_one_step_lasts(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.02)
    for number in track(range(4), "scoring", unit="batch"):
        if number == 2:
            text = written_until(capsys, lambda text: text.count("2 of 4") > 1)
    assert re.search(r"^scoring: 2 of 4 batch, 00:0\d so far, about 00:0\d left$", text, re.MULTILINE)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""  # the loop has ended, and so have its lines


def test_what_is_counted_without_an_end_says_how_much_is_done(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.02)
    with track(name="ratings.csv", unit=" rows", unit_scale=True) as bar:
        bar.set_postfix_str("2 requests", refresh=False)
        bar.update(1_200_000)
        text = written_until(capsys, lambda text: "rows" in text)
    assert re.search(r"ratings\.csv: 1\.20M rows, 00:0\d so far, 2 requests", text)


def test_a_short_loop_or_one_without_a_name_writes_nothing(monkeypatch, capsys):
    assert list(track(range(3), "short")) == [0, 1, 2]
    monkeypatch.setattr(progress, "EVERY", 0.001)
    for _ in track(range(3)):
        time.sleep(0.01)
    assert capsys.readouterr().err == ""
