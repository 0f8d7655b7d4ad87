"""The one exception that means "the input is wrong", as opposed to "the program is wrong".

Stages turn it into a single line on stderr and exit status 1; anything else is a bug and keeps its traceback.
Where a name is unknown, the line suggests the nearest one.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something a user can mend: the message is one line saying what, where and what to do.

    It may name files, columns and values that others wrote: what a terminal would act on is shown escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in message))


def nearest_name(name: str, names: Iterable[str]) -> str:
    """The one of `names` that was probably meant.

    One letter off (`m` for `n`) is nearest of all, though difflib sees no likeness.
    """
    names = list(names)
    for other in names:
        if len(other) == len(name) and sum(a != b for a, b in zip(other, name, strict=True)) == 1:
            return other
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]


def diverged(phase: str, place: str, learning_rate: float) -> UserError:
    """The error of a training whose numbers are none any more: where, and what to lower."""
    return UserError(
        f"{phase}: training diverged at {place}, its numbers are infinite or none; lower the learning rate "
        f"({learning_rate:g}) of this part in params.yaml"
    )
