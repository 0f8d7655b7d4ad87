"""What an answer's verdict is (METHOD section 2: an answer must begin with Yes or No).

The verdict is the answer's first *word*, never a substring: "Nothing", "Not" and "Noah" are no verdicts. Markup
around it (quotes, `**`, "1. Verdict:") is allowed, since chat models write it whatever they are told.
"""

from __future__ import annotations

import re
import unicodedata

WORDS = {True: "Yes", False: "No"}

_MARKUP = r"[\s*_#>`~\"'“”\u2018\u2019«»()\[\]-]*"
_LABEL = rf"(?:(?:\(?\d{{1,2}}[.):]{_MARKUP})?(?:final\s+|my\s+)?(?:verdict|answer){_MARKUP}[:\uff1a]{_MARKUP})?"
# "Yes or No" leaves the question open; "No doubt" and "No one" begin with the word and mean something else.
_NOT_A_VERDICT = (
    r"(?![^\W_])(?![-'\u2019_][^\W_])"
    r"(?!\s*(?:/|or\b)\s*(?:yes|no)\b)"
    r"(?!(?<=no)\s+(?:doubt|matter|one|problem|question|wonder)\b)"
)
_VERDICT = re.compile(rf"{_MARKUP}{_LABEL}(?P<word>yes|no){_NOT_A_VERDICT}", re.IGNORECASE)
_AFTER = re.compile(r"[\s*_`~\"'“”\u2018\u2019«»)\]]*[.,:;!…\u2013—-]*[\s*_`~\"'“”\u2019»)\]\u2013—-]*")


def parse_verdict(text: str) -> bool | None:
    """True for an answer that begins with the word Yes, False for No, None for anything else."""
    parts = split_verdict(text)
    return None if parts is None else parts[0]


def split_verdict(text: str) -> tuple[bool, str] | None:
    """The verdict and the explanation after it, without the markup between them; None where there is no verdict."""
    text = unicodedata.normalize("NFC", text)  # or an "o" with a separate accent would end the word "No"
    match = _VERDICT.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    gap = _AFTER.match(rest)
    assert gap is not None  # every part of the pattern is optional
    return match["word"].lower() == "yes", rest[gap.end() :].strip()


def canonical(verdict: bool, explanation: str) -> str:
    """An answer in the one form that models are trained on: "Yes. " or "No. ", then the explanation."""
    explanation = " ".join(explanation.split())
    return f"{WORDS[verdict]}. {explanation[:1].upper()}{explanation[1:]}".strip()
