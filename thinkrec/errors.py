"""The one exception that means "the input is wrong", as opposed to "the program is wrong".

Stages turn it into a single line on stderr and exit status 1; anything else is a bug and keeps its traceback.
"""


class UserError(Exception):
    """Something a user can mend: the message is one line saying what, where and what to do.

    It may name files, columns and values that others wrote: what a terminal would act on is shown escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in message))
