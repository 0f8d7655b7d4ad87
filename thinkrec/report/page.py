"""The page itself: one HTML file that holds its style, its script and its data, and asks for nothing else.

What strangers wrote (titles, keywords, user ids, reasons) stands in the data only, and the script puts it there as
text; the template escapes all else. The content security policy admits this very script and style, by their hashes, and
nothing from anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from thinkrec.evaluation.intervals import HEADLINE
from thinkrec.evaluation.models import BEST, OURS, display_name, kind_of
from thinkrec.evaluation.tables import CASE_NAMES, KINDS, SLICE_NAMES
from thinkrec.report.accuracy import LEADING, best_rival, figure_text, forest, metric_name, standing
from thinkrec.report.users import encode_json

LARGEST = 5_000_000  # bytes of a page
HERE = Path(__file__).parent
SPLIT_FACTS = {  # of `ingest`'s measures: what people call them, and how they are written
    "interactions": ("interactions", ",.0f"),
    "users": ("users", ",.0f"),
    "items": ("items", ",.0f"),
    "positive_share": ("liked", ".0%"),
    "known_user_share": ("of users in train", ".0%"),
    "known_item_share": ("of items in train", ".0%"),
    "median_history": ("median history", ",.0f"),
    "no_history_share": ("without history", ".0%"),
    "best_auc": ("AUC of the true probabilities", ".4f"),
}


def page(contents: dict[str, Any], sections: Mapping[str, Any]) -> str:
    """The whole page for what `contents.contents` and `contents.sections` make."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure_text, "name": display_name, "metric": metric_name}
    environment.tests["of_kind"] = lambda column, kind: kind_of(column) == kind
    environment.globals |= {
        **{"OURS": OURS, "BEST": BEST, "HEADLINE": HEADLINE, "LEADING": LEADING, "KINDS": KINDS},
        **{"SLICE_NAMES": SLICE_NAMES, "CASE_NAMES": CASE_NAMES, "SPLIT_FACTS": SPLIT_FACTS},
        "SHOWN_METRICS": (*HEADLINE, "log_loss", "calibration_error"),
        **{"best_rival": best_rival, "forest": forest, "standing": standing},
    }
    style, script = (HERE.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; script-src '{_hash_of(script)}'; style-src '{_hash_of(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    text = environment.get_template("page.html").render(
        **sections,
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        data=Markup(encode_json(contents)),
    )
    assert len(text.encode()) <= LARGEST, f"a page of {len(text.encode()):,} bytes"
    return text


def _hash_of(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
