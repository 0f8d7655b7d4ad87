"""Several processes, one result: each process's number, its share of the work, and the gathering of results.

`torchrun` (`run.processes`) starts processes that run the same stage on the same artefacts. What must not be done twice
is shared out with the functions below, which all must call in the same order. A process alone has everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

T = TypeVar("T")


def device() -> torch.device:
    """Where models run: this process's accelerator if there is one; `THINKREC_DEVICE` overrides."""
    if _several():
        _state()  # makes this process's accelerator the current one
    return torch.device(os.environ.get("THINKREC_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def has_bf16() -> bool:
    """Whether models run where bfloat16 has its own instructions; a processor without them takes 30 times as long."""
    return device().type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def count() -> int:
    """How many processes there are."""
    return int(_state().num_processes) if _several() else 1


def rank() -> int:
    """This process's number, from 0, the main one."""
    return int(_state().process_index) if _several() else 0


def mine(items: Sequence[T]) -> Sequence[T]:
    """This process's share of `items`: every `count()`-th, so that items in order of their size share out evenly."""
    return items[rank() :: count()]


def gather(items: Iterable[T]) -> list[T]:
    """The items of all processes, in the order of their ranks; every process gets them."""
    return list(gather_object(list(items))) if count() > 1 else list(items)


def from_main(value: T) -> T:
    """The main process's `value`, in every process."""
    return broadcast_object_list([value])[0] if count() > 1 else value


def wait() -> None:
    """Go on when every process is here."""
    if count() > 1:
        _state().wait_for_everyone()


def _several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _state() -> PartialState:
    """accelerate's own state; the first call connects the processes."""
    on_processor = os.environ.get("THINKREC_DEVICE") == "cpu" or not torch.cuda.is_available()
    return PartialState(cpu=on_processor)
