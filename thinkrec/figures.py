"""What all pictures share: colours, a bare figure, and how it becomes a file.

Bytes follow from the data: no dates, no version strings, the bundled font. Colours are Okabe and Ito's, which stay
apart for colour-blind readers. Figures are made without pyplot, so there is no global state and no display to look for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from thinkrec.artifacts import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#999999")
GREY = "#bbbbbb"
DPI = 120


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure (inches) of so many empty axes, row by row, without upper and right frame lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG."""
    with atomic(path) as partial:
        # matplotlib writes its version into the file unless told not to.
        figure.savefig(partial, format="png", metadata={"Software": None})
