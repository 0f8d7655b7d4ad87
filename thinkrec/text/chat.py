"""What a model's chat template puts around a prompt: the frame that the `question` layout stands in.

A frame must be the same on every day and lead to an answer: the date that some templates write is fixed, and a thought
that some open is closed, as Qwen3's own template does where thinking is switched off.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from thinkrec.errors import UserError

ANSWER = "\nAnswer:"
DAY = datetime(2024, 7, 26)  # what Llama 3.2's template itself says where it cannot ask for the date
CODES = [*"aAbBdmyYjHIMSp", *("-d", "-m", "-H", "-I", "-j"), *"xXcFDT"]  # of strftime
MARK = "@@prompt@@"
OPENED = re.compile(r"([<\[◁]\|?)((?!end)[\w:]*(?:think|thought|reason)[\w:]*)(\|?[>\]▷])", re.IGNORECASE)


def frame_of(tokenizer: PreTrainedTokenizerBase, begin: int) -> tuple[tuple[int, ...], str]:
    """What stands before a prompt's text, as tokens, and after it, as text: verdicts are found after that.

    These are the chat template's own, or the begin token and `Answer:`. A begin token that comes from the tokenizer and
    not from the template stands before them, too. A UserError says that the template leaves no place for an answer.
    """
    if tokenizer.chat_template is None:
        return (begin,), ANSWER
    template = tokenizer.get_chat_template()
    head, tail = _render(tokenizer, template)
    tokens = tokenizer(head, add_special_tokens=False)["input_ids"]
    if tokens[:1] != [begin] and tokenizer(head)["input_ids"][:1] == [begin]:
        tokens = [begin, *tokens]
    return tuple(tokens) or (begin,), _close_thought(tail, tokenizer, template)


def frame_hash(tokenizer: PreTrainedTokenizerBase, begin: int) -> str:
    """A hash of the frame as it is rendered: what a model that is asked in it belongs to."""
    return hashlib.sha256(json.dumps(frame_of(tokenizer, begin)).encode()).hexdigest()


def _render(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, str]:
    """The text before and after a user's message, all thinking switched off."""
    problem = "it does not write a message once, as it is"
    for content in (MARK, [{"type": "text", "text": MARK}]):  # templates of models that can also see take parts
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=_with_fixed_date(template),
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
                thinking=False,
            )
        except (TemplateError, TypeError, ValueError) as error:
            problem = " ".join(str(error).split())
        else:
            if text.count(MARK) == 1:
                head, _, tail = text.partition(MARK)
                return head, tail
    raise UserError(
        f"{tokenizer.name_or_path}: its chat template cannot be used ({problem}); mend it, take it out of the model "
        "directory, or set prompt.layout=stream"
    )


def _with_fixed_date(template: str) -> str:
    """The template with DAY for today: `transformers` hands it a function of the clock, which this macro hides."""
    if "strftime_now" not in template:
        return template
    replaced = "".join(f"|replace('%{code}', '{DAY.strftime(f'%{code}')}')" for code in CODES)
    return f"{{% macro strftime_now(form) %}}{{{{ form{replaced} }}}}{{% endmacro %}}\n{template}"


def _close_thought(tail: str, tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The text after a prompt, a thought in it closed: what comes next is the verdict, not the thought's first word."""
    opened = list(OPENED.finditer(tail))
    if not opened:
        return tail
    left, name, right = opened[-1].groups()
    ended = re.sub("start|begin", lambda word: "END" if word[0].isupper() else "end", name, flags=re.IGNORECASE)
    closings = [f"{left}/{name}{right}", *([f"{left}{ended}{right}"] if ended != name else [])]
    if any(closing in tail[opened[-1].end() :] for closing in closings):
        return tail
    closing = next((text for text in closings if text in tokenizer.get_vocab() or text in template), None)
    if closing is None:
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template opens a thought ({opened[-1][0]}) that nothing is known to "
            "close, so no verdict could be read; mend the template, or set prompt.layout=stream"
        )
    return f"{tail.rstrip()}\n\n{closing}\n\n"
