"""The page itself: one HTML file that holds its style, its script and its data, and asks for nothing else.

What strangers wrote (titles, keywords, user ids, reasons) stands in the data only, and the script puts it there as
text; so are sections that are no markup. The content security policy admits this very script and style, by their
hashes, and nothing from anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from thinkrec.report.markup import join
from thinkrec.report.users import encode_json

LARGEST = 5_000_000  # bytes of a page


def page(contents: dict[str, Any], sections: Mapping[str, str]) -> str:
    """The whole page for what `contents.contents` and `contents.sections` make."""
    files = resources.files("thinkrec.report")
    style, script, frame = (
        files.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html")
    )
    policy = (
        f"default-src 'none'; script-src '{_hash_of(script)}'; style-src '{_hash_of(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    text = Template(frame).substitute(
        policy=policy,
        style=style,
        script=script,
        data=encode_json(contents),
        **{place: join([part]) for place, part in sections.items()},
    )
    assert len(text.encode()) <= LARGEST, f"a page of {len(text.encode()):,} bytes"
    return text


def _hash_of(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
