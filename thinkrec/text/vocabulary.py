"""The few tokens with a role, found in any tokenizer: the verdicts, the beginning, the end and the slot's stand-in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from thinkrec.errors import UserError

VERDICTS = ("No", "Yes")  # by label
STOP = "."  # between a verdict and its reason
LINE = "\n"
SPACES = ("▁", "Ġ")  # how SentencePiece and byte-level tokens write a space


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Token ids. `slot` only marks the place: its embedding is replaced where a projector has something to say.

    An answer is `lead`, then the verdict, then the `rest` of its word. Scores are read at the verdict, the first token
    in which " Yes" and " No" differ; tokenizers that split the words put what they share into `lead`. A `stop`
    follows the verdict, or stands in its place where a reason comes first.
    """

    begin: int
    end: int
    slot: int
    no: int
    yes: int
    lead: tuple[int, ...] = ()
    rest: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # by label
    stop: tuple[int, ...] = ()

    @property
    def verdicts(self) -> tuple[int, int]:
        """Verdict tokens by label: (No, Yes)."""
        return self.no, self.yes


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of all that decides which tokens a text becomes, the chat template included."""
    whole = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps([whole, tokenizer.chat_template]).encode()).hexdigest()


def pieces(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **how: Any) -> list[list[int]]:
    """Tokens of each text as it goes on in the middle of a prompt, without special tokens.

    SentencePiece's kin put a space before whatever they are given (Llama 2, Mistral). They are given a line break
    first, and its tokens are cut off. `how` goes to the tokenizer.
    """
    line = tokenizer(LINE, add_special_tokens=False)["input_ids"]
    if not line or not tokenizer.convert_ids_to_tokens(line[0]).startswith(SPACES):
        return tokenizer(list(texts), add_special_tokens=False, **how)["input_ids"] if texts else []
    whole = tokenizer([LINE + text for text in texts], add_special_tokens=False, **how)["input_ids"] if texts else []
    return [tokens[len(line) :] for tokens in whole]


def find_vocabulary(tokenizer: PreTrainedTokenizerBase, *, after: str = "") -> Vocabulary:
    """The role tokens of `tokenizer`, where verdicts stand after the text `after`; its tokens join the `lead`.

    Models without a begin-of-sequence token (Qwen) begin with their end token. A UserError says that the verdicts'
    tokens do not differ, or that there is no end token.
    """
    space = "" if after[-1:].isspace() or after.endswith(">") else " "  # none after a chat template's own tokens
    no, yes, stop = pieces(tokenizer, [*(f"{after}{space}{word}" for word in VERDICTS), STOP])
    shared = next((at for at, (a, b) in enumerate(zip(no, yes, strict=False)) if a != b), None)
    if shared is None:
        raise UserError(
            f"{tokenizer.name_or_path}: ' Yes' and ' No' are the same tokens, or one begins the other, so no verdict "
            "can be read from logits; choose another backbone"
        )
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError(f"{tokenizer.name_or_path}: its tokenizer has no end-of-sequence token; choose another one")
    begin, slot = (end if token is None else token for token in (tokenizer.bos_token_id, tokenizer.unk_token_id))
    return Vocabulary(
        begin=begin,
        end=end,
        slot=slot,
        no=no[shared],
        yes=yes[shared],
        lead=tuple(no[:shared]),
        rest=(tuple(no[shared + 1 :]), tuple(yes[shared + 1 :])),
        stop=tuple(stop),
    )
