"""Where the parts of a dataset are read: in this process, or by the workers of a Dask cluster (extra `scale`).

A cluster is named as Dask's own tools name it, in the environment, since where something is computed is no parameter
of what comes out: `DASK_SCHEDULER_ADDRESS=tcp://host:8786 dvc repro`. Any cluster will do whose workers have this
package and see the raw files at the same paths. What a part becomes stays with the worker that read it until it is
gathered, so this machine holds what is kept of the data, never all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from thinkrec.errors import UserError

ADDRESS = "DASK_SCHEDULER_ADDRESS"
CONNECT = 10  # seconds to find the scheduler

R = TypeVar("R")


class Workers(Protocol):
    """Somewhere to apply functions; what they return is passed on or gathered, in the order of the values."""

    def map(self, function: Callable[[Any], R], values: Sequence[Any]) -> list[Any]:
        """The function of each value, or of what an earlier `map` made: as tickets to map again, or to gather."""

    def gather(self, tickets: list[Any]) -> list[Any]:
        """What the tickets stand for."""


class Here:
    """This process."""

    def map(self, function: Callable[[Any], R], values: Sequence[Any]) -> list[R]:
        return [function(value) for value in values]

    def gather(self, tickets: list[R]) -> list[R]:
        return tickets


class Cluster:
    """The workers of a Dask cluster."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def map(self, function: Callable[[Any], R], values: Sequence[Any]) -> list[Any]:
        # Not pure: to Dask, a path would be the same data for ever.
        tickets: list[Any] = self._client.map(function, values, pure=False)
        return tickets

    def gather(self, tickets: list[Any]) -> list[Any]:
        found: list[Any] = self._client.gather(tickets)
        return found


@contextmanager
def workers(parts: int) -> Iterator[Workers]:
    """Whoever is to read so many parts: a cluster if one is named, this process for a single part or without one.

    Raises:
        UserError: a cluster is named, but Dask is not installed, nothing answers, or the workers are lost.
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
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{ADDRESS}={address}: no Dask scheduler answers there ({reason}); start one or unset it"
        ) from None
    with client:
        try:
            yield Cluster(client)
        except (KilledWorker, FutureCancelledError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{ADDRESS}={address}: the workers were lost ({reason}); see their logs, then run it again"
            ) from None
