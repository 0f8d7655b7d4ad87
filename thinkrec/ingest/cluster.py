"""Where the parts of a dataset are read: in this process, or by the workers of a Dask cluster (extra `scale`).

A cluster is named as Dask's own tools name it, since where something is computed is no parameter of what comes out:
`DASK_SCHEDULER_ADDRESS=tcp://host:8786 dvc repro`. Its workers need this package and the raw files at the same paths.
What a part becomes stays with the worker that read it until it is gathered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from thinkrec.errors import UserError

ADDRESS = "DASK_SCHEDULER_ADDRESS"
CONNECT = 10  # seconds to find the scheduler


class Here:
    """This process, with the two methods of a Dask client that are used."""

    def map(self, function: Callable[[Any], Any], values: Sequence[Any], *, pure: bool = False) -> list[Any]:
        """The function of each value, or of each result of an earlier `map`, in order."""
        return [function(value) for value in values]

    def gather(self, results: list[Any]) -> list[Any]:
        """The results themselves."""
        return results


@contextmanager
def workers(parts: int) -> Iterator[Any]:
    """Where to read so many parts: a client of the cluster if one is named, `Here` for a single part or without one.

    Call `map` with pure=False: to Dask, the same path would else stand for the same data for ever. A cluster that is
    named but cannot be used, or whose workers are lost, is a UserError.
    """
    address = os.environ.get(ADDRESS)
    if not address or parts < 2:
        yield Here()
        return
    try:
        from distributed import Client
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise UserError(
            f"{ADDRESS} names a Dask cluster; install Dask (pip install 'thinkrec[scale]') or unset it"
        ) from None
    where = f"{ADDRESS}={address}"
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: no Dask scheduler answers there ({_line(error)}); start one or unset it") from None
    with client:
        try:
            yield client
        except (KilledWorker, FutureCancelledError) as error:
            raise UserError(
                f"{where}: the workers were lost ({_line(error)}); see their logs, then run it again"
            ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
