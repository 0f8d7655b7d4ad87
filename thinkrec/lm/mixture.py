"""The exact per-sample mixture of LoRA adapters (METHOD: experts and fusion).

    y = W x + sum_n w_n s_n B_n A_n x = W x + ((x A_cat^T) o g) B_cat^T

with the scalings s_n = alpha / r folded into A_cat and each sample's weight w_n repeated over expert n's rank in g.
One pass serves a batch of any users; it equals merging every user's own weights.

Shapes: B samples, T tokens, N + 1 adapters (column 0 is the global one), R their ranks summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor, nn

from thinkrec.errors import UserError


@dataclass(slots=True, eq=False)
class Router:
    """The weights (B, N + 1) that the mixture's layers apply to the current batch.

    An object, not a context variable: it must be set through `backward()` where gradients are wanted.
    """

    weights: Tensor = field(default_factory=lambda: torch.zeros(0, 0))


class MixtureLinear(nn.Module):
    """A linear layer plus the weighted sum of the adapters that touch it."""

    down: Tensor  # (R, in)
    up: Tensor  # (out, R)
    column: Tensor  # (R,) which column of the weights each rank belongs to

    def __init__(self, base: nn.Linear, adapters: dict[int, tuple[Tensor, Tensor, float]], router: Router) -> None:
        """`adapters` maps a column of the weights to (A (r, in), B (out, r), scaling)."""
        super().__init__()
        self.base = base
        self.router = router
        down = torch.cat([scaling * a for a, _, scaling in adapters.values()])
        up = torch.cat([b for _, b, _ in adapters.values()], dim=1)
        column = torch.cat([torch.full((len(a),), index) for index, (a, _, _) in adapters.items()])
        self.register_buffer("down", down.to(base.weight))
        self.register_buffer("up", up.to(base.weight))
        self.register_buffer("column", column.to(base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        gate_BR = self.router.weights[:, self.column].to(x.dtype)
        return self.base(x) + ((x @ self.down.T) * gate_BR[:, None, :]) @ self.up.T


def install(backbone: nn.Module, adapters: Sequence[Path | None]) -> Router:
    """Put the mixture of these PEFT directories in place of the layers they touch; returns its router.

    Entry k is column k of the weights; None is the zero adapter (the `compact` recipe's global one). The backbone is
    frozen.

    Raises:
        UserError: a directory is not a plain LoRA on layers of this backbone.
    """
    router = Router()
    backbone.requires_grad_(False)
    layers: dict[str, dict[int, tuple[Tensor, Tensor, float]]] = {}
    for column, folder in enumerate(adapters):
        if folder is None:
            continue
        for name, (a, b, scaling) in read_lora(folder).items():
            layers.setdefault(name, {})[column] = (a, b, scaling)
    modules = dict(backbone.named_modules())
    for name, by_column in sorted(layers.items()):
        base = modules.get(name)
        if not isinstance(base, nn.Linear):
            raise UserError(f"{name}: an adapter touches this layer, which this backbone has not; rerun dvc repro sft")
        parent = modules[name.rpartition(".")[0]]
        setattr(parent, name.rpartition(".")[2], MixtureLinear(base, by_column, router))
    return router


def read_lora(folder: Path) -> dict[str, tuple[Tensor, Tensor, float]]:
    """A PEFT LoRA directory as layer name -> (A (r, in), B (out, r), scaling).

    Raises:
        UserError: it is absent, or uses a kind of LoRA whose mixture is not a weighted sum of B A.
    """
    # Looked for here: peft would ask the hub for a missing folder, and fall back to a pickle.
    missing = [name for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: not a PEFT adapter directory, it has no {missing[0]}; rerun: dvc repro experts")
    config = PeftConfig.from_pretrained(str(folder))
    weights = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    plain = config.peft_type == "LORA" and not (config.use_dora or config.use_rslora or config.rank_pattern)
    known = all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in weights)
    if not plain or not known or config.bias != "none" or config.alpha_pattern:
        raise UserError(f"{folder}: only plain LoRA adapters can be mixed (no DoRA, rsLoRA, bias, patterns or others)")
    out: dict[str, tuple[Tensor, Tensor, float]] = {}
    for name, a in weights.items():
        if name.endswith(".lora_A.weight"):
            b = weights[name.replace(".lora_A.", ".lora_B.")]
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            out[layer] = (a, b, config.lora_alpha / config.r)
    return out
