"""The few tokens with a role, found in any tokenizer: the verdicts, the beginning, the end and the slot's stand-in."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from thinkrec.errors import UserError

VERDICTS = ("No", "Yes")  # by label


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Token ids. `slot` only marks the place: its embedding is replaced where a projector has something to say."""

    begin: int
    end: int
    slot: int
    no: int
    yes: int

    @property
    def verdicts(self) -> tuple[int, int]:
        """Verdict tokens by label: (No, Yes)."""
        return self.no, self.yes


def find_vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The role tokens of `tokenizer`.

    The verdict is the first token of " Yes" and " No" (as they stand after other text). Models without a
    begin-of-sequence token (Qwen) begin with their end token.

    Raises:
        UserError: the verdicts do not differ in their first token, or there is no end token.
    """
    no, yes = (tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in VERDICTS)
    if no == yes:
        raise UserError(
            f"{tokenizer.name_or_path}: ' Yes' and ' No' begin with the same token, so no verdict can be read from "
            "logits; choose another backbone"
        )
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError(f"{tokenizer.name_or_path}: its tokenizer has no end-of-sequence token; choose another one")
    begin = tokenizer.bos_token_id
    slot = tokenizer.unk_token_id
    return Vocabulary(
        begin=end if begin is None else begin, end=end, slot=end if slot is None else slot, no=no, yes=yes
    )
