"""LoRA adapters, the global one of the `paper` recipe and the experts alike, and their exact mixture per sample.

Adapters touch some projections of each layer's attention (`lm.families`), and are ordinary PEFT directories. Their
mixture (METHOD: experts and fusion) is

    y = W x + sum_n w_n s_n B_n A_n x = W x + ((x A_cat^T) o g) B_cat^T

with the scalings s_n = alpha / r folded into A_cat and each sample's weight w_n repeated over expert n's rank in g.
One pass serves a batch of any users, and equals merging every user's own weights. Adapters that are the same in a layer
(copies of the global one, below the layers that experts train) are computed once, under the sum of their weights. Where
all of them are the same, that sum is 1, and there is nothing to weigh.

What adapters share is computed once: below the first layer that differs between them, a sequence is the same for every
expert, every weighting and every epoch. `SharedLayers` keeps what comes out there, and a sequence that comes again
begins at the first layer that differs. Everything around the layers (embeddings, positions, masks, the final norm) is
run as the model's family runs it.

Shapes: B samples, T tokens, D hidden size, N + 1 adapters (column 0 is the global one), R their ranks summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from thinkrec.artifacts import read_json, write_json
from thinkrec.errors import UserError
from thinkrec.lm.families import lora_sites, text_config
from thinkrec.params import LoraParams
from thinkrec.text.layout import Batch

if TYPE_CHECKING:
    from peft import PeftModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # the files of a PEFT directory
LIMIT = 2 * 2**30  # bytes of hidden states that are kept at a time
SAME = 1e-5  # of the largest hidden state: how far a sequence that begins further up may be from the plain way
Lora = tuple[Tensor, Tensor, float]  # A (r, in), B (out, r), scaling


def add_lora(backbone: PreTrainedModel, params: LoraParams, *, layers: int | None = None) -> PeftModel:
    """Put a fresh trainable LoRA into the last `layers` layers (all), in place, everything else frozen.

    Returns its PEFT handle. A UserError says that there are fewer layers, or none that adapters know.
    """
    from peft import LoraConfig, get_peft_model  # half a second to import, and only training needs it

    sites, first = lora_sites(backbone), first_adapted_layer(backbone, layers)
    config = LoraConfig(
        r=params.r,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=sites.target_modules,
        exclude_modules=sites.exclude_modules,
        layers_to_transform=list(range(first, text_config(backbone).num_hidden_layers)),
        layers_pattern=sites.layers_pattern,
        bias="none",
        task_type="CAUSAL_LM",
    )
    backbone.requires_grad_(False)
    return get_peft_model(backbone, config)


def first_adapted_layer(backbone: PreTrainedModel, layers: int | None) -> int:
    """The number of the first of the last `layers` layers (all); a UserError if there are fewer."""
    depth = text_config(backbone).num_hidden_layers
    if layers is not None and layers > depth:
        raise UserError(f"experts.layers={layers}: the backbone has only {depth} layers; ask for at most {depth}")
    return 0 if layers is None else depth - layers


def save_adapter(adapter: PeftModel, folder: Path, *, base: str) -> None:
    """Write a PEFT directory whose bytes follow from the weights: lists sorted, `base` as the model's name."""
    adapter.save_pretrained(str(folder), save_embedding_layers=False)  # or peft asks the hub about the base model
    (folder / "README.md").unlink(missing_ok=True)  # a model card template, empty of facts
    path = folder / CONFIG
    config = read_json(path)
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base
    config["inference_mode"] = True  # or it would say whether the adapter was made here or copied
    write_json(path, config)


def read_lora(folder: Path) -> dict[str, Lora]:
    """A PEFT LoRA directory as layer name -> (A (r, in), B (out, r), scaling).

    A UserError says that there is none, or that it is of a kind whose mixture is not a weighted sum of B A.
    """
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: not a PEFT adapter directory, it has no {missing[0]}; rerun: dvc repro experts")
    config, weights = read_json(folder / CONFIG), load_file(folder / WEIGHTS)
    others = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern")
    plain = config["peft_type"] == "LORA" and config["bias"] == "none" and not any(map(config.get, others))
    only_lora = all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in weights)
    if not plain or not only_lora:
        raise UserError(f"{folder}: only plain LoRA adapters can be mixed (no DoRA, rsLoRA, bias, patterns or others)")
    layers: dict[str, Lora] = {}
    for name, a in weights.items():
        if name.endswith(".lora_A.weight"):
            b = weights[name.replace(".lora_A.", ".lora_B.")]
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            layers[layer] = (a, b, config["lora_alpha"] / config["r"])
    return layers


@dataclass(slots=True, eq=False)
class BatchWeights:
    """Where the mixture's layers read the current batch's weights (B, N + 1).

    An object that all layers share, not a context variable: where gradients are wanted, the weights must still be there
    in `backward()`.
    """

    tensor: Tensor = field(default_factory=lambda: torch.zeros(0, 0))


class MixtureLinear(nn.Module):
    """A linear layer plus the weighted sum of the adapters that touch it."""

    down: Tensor  # (R, in)
    up: Tensor  # (out, R)
    share: Tensor  # (N + 1, R): 1 where a rank belongs to an adapter

    def __init__(
        self,
        base: nn.Linear,
        adapters: dict[int, Lora],
        batch_weights: BatchWeights,
        *,
        columns: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`adapters` maps some of the `columns` of the weights to a LoRA each, kept as `dtype` (that of `base`)."""
        super().__init__()
        self.base = base
        self.batch_weights = batch_weights
        distinct: list[Lora] = []
        shares = []  # (N + 1,) each: 1 for the columns of a distinct adapter's copies
        for adapter in adapters.values():
            if not any(_equal(other, adapter) for other in distinct):
                copies = [column for column, other in adapters.items() if _equal(other, adapter)]
                shares.append(torch.zeros(columns).index_fill(0, torch.tensor(copies), 1))
                distinct.append(adapter)
        ranks = torch.tensor([len(a) for a, _, _ in distinct])
        share = torch.stack(shares, dim=1).repeat_interleave(ranks, dim=1)
        self.shared = bool(share.all())
        device, dtype = base.weight.device, dtype or base.weight.dtype
        self.register_buffer("down", torch.cat([scaling * a for a, _, scaling in distinct]).to(device, dtype))
        self.register_buffer("up", torch.cat([b for _, b, _ in distinct], dim=1).to(device, dtype))
        self.register_buffer("share", share.to(device))

    def forward(self, x: Tensor) -> Tensor:
        inner = x.to(self.down.dtype) @ self.down.T
        if not self.shared:
            weights = self.batch_weights.tensor
            inner = inner * (weights @ self.share.to(weights.dtype)).to(inner.dtype)[:, None, :]
        return self.base(x) + (inner @ self.up.T).to(x.dtype)


def _equal(first: Lora, second: Lora) -> bool:
    return first[2] == second[2] and torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def install_mixture(backbone: nn.Module, adapters: Sequence[Path | None]) -> BatchWeights:
    """Put the mixture of these PEFT directories in place of the layers they touch, the backbone frozen.

    Returns where to set a batch's weights. Entry k of `adapters` is column k of the weights; None is the zero adapter
    (the `compact` recipe's global one). A UserError says that one is not a plain LoRA on layers of this backbone.
    """
    batch_weights = BatchWeights()
    backbone.requires_grad_(False)
    layers: dict[str, dict[int, Lora]] = {}
    for column, folder in enumerate(adapters):
        if folder is None:
            continue
        for name, lora in read_lora(folder).items():
            layers.setdefault(name, {})[column] = lora
    modules = dict(backbone.named_modules())
    dtype = next(weight.dtype for weight in backbone.parameters() if weight.is_floating_point())
    for name, by_column in sorted(layers.items()):
        base = modules.get(name)
        if not isinstance(base, nn.Linear):
            raise UserError(f"{name}: an adapter touches this layer, which this backbone has not; rerun dvc repro sft")
        parent = modules[name.rpartition(".")[0]]
        layer = MixtureLinear(base, by_column, batch_weights, columns=len(adapters), dtype=dtype)
        setattr(parent, name.rpartition(".")[2], layer)
    return batch_weights


@contextmanager
def standing_in(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let `forward` do the work of `module`."""
    own = vars(module).get("forward")  # some are replaced already, as by accelerate
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def layers_of(backbone: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers of a causal language model; none where they are no plain list."""
    depth = text_config(backbone).num_hidden_layers
    lists = (module for module in backbone.get_decoder().modules() if isinstance(module, nn.ModuleList))
    return next((layers for layers in lists if len(layers) == depth), nn.ModuleList())


def first_differing(backbone: PreTrainedModel) -> int:
    """The number of the first layer that learns or that mixes adapters; that of layers, if there is none."""
    layers = layers_of(backbone)
    return next((number for number, layer in enumerate(layers) if _differs(layer)), len(layers))


def _differs(layer: nn.Module) -> bool:
    mixes = any(isinstance(module, MixtureLinear) and not module.shared for module in layer.modules())
    return mixes or any(weight.requires_grad for weight in layer.parameters())


class SharedLayers:
    """The frozen layers below the first that differs, and what sequences were after them.

    A family whose upper layers take more from the lower ones than hidden states is found out at the first pass without
    dropout (nothing is shared before it), and from then on is run plainly.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        layers = layers_of(backbone)
        first = first_differing(backbone)
        self.lower, self.upper = layers[:first], layers[first:]
        self.states: dict[bytes, Tensor] = {}  # of a sequence, without its padding (T, D)
        self.size = 0  # of all states, in bytes
        self.checked = False  # whether a pass of the upper layers alone was held against the whole pass

    def run(self, batch: Batch, read: Callable[[], Tensor]) -> Tensor:
        """The hidden states (B, T, D) of `read`, a pass of `batch` through the model; its lower layers are frozen."""
        if not self.lower:
            return read()
        self.lower.eval()  # what does not learn drops nothing out
        real_BT = batch.position_ids > 0  # all but padding and a sequence's first token
        real_BT[:, 0] = True
        lengths = real_BT.sum(1).tolist()
        keys = _keys(batch, lengths)
        if self.checked and all(key in self.states for key in keys):
            return self._again([self.states[key] for key in keys], batch, read)
        outputs: list[Any] = []
        hook = self.lower[-1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        try:
            hidden = read()
        finally:
            hook.remove()
        if not isinstance(outputs[0], Tensor):  # older families return a tuple
            self.lower = self.lower[:0]
            return hidden
        with torch.inference_mode(False), torch.no_grad():  # may be read where gradients are wanted, too
            states = [outputs[0][number, :length].clone().cpu() for number, length in enumerate(lengths)]
        for key, state in zip(keys, states, strict=True):
            if key not in self.states and self.size < LIMIT:
                self.states[key] = state
                self.size += state.nbytes
        if not self.checked and not any(layer.training for layer in self.upper):  # no dropout
            self._check(states, batch, read, hidden)
        return hidden

    @torch.no_grad()
    def _check(self, states: list[Tensor], batch: Batch, read: Callable[[], Tensor], hidden: Tensor) -> None:
        """Give up, if the upper layers alone do not get from the `states` what a whole pass has got (B, T, D)."""
        tolerance = max(SAME, 4 * torch.finfo(hidden.dtype).eps) * hidden.abs().max()
        try:
            again = self._again(states, batch, read)
            self.checked = all(
                bool((again[number, : len(state)] - hidden[number, : len(state)]).abs().max() <= tolerance)
                for number, state in enumerate(states)
            )
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            self.checked = False  # what the lower layers should have left is not there
        if not self.checked:
            self.lower, self.states = self.lower[:0], {}

    def _again(self, states: list[Tensor], batch: Batch, read: Callable[[], Tensor]) -> Tensor:
        """Run the upper layers only, on these states of the batch's sequences."""
        hidden = states[0].new_zeros(*batch.input_ids.shape, states[0].shape[1])
        for number, state in enumerate(states):
            hidden[number, : len(state)] = state
        hidden = hidden.to(batch.input_ids.device)
        with ExitStack() as stack:
            for layer in self.lower:
                stack.enter_context(standing_in(layer, lambda *_inputs, **_options: hidden))
            return read()


def _keys(batch: Batch, lengths: list[int]) -> list[bytes]:
    """What names each sequence (B): all that its hidden states depend on, and how they are computed."""
    ids, positions, mask = (each.cpu().numpy() for each in (batch.input_ids, batch.position_ids, batch.attention_mask))
    slots = torch.cat([batch.slots, batch.slot_rows[:, None], batch.slot_kinds[:, None]], dim=1).cpu().numpy()
    how = str(torch.is_autocast_enabled(batch.input_ids.device.type)).encode()
    keys = []
    for number, length in enumerate(lengths):
        name = blake2b(how, digest_size=16)
        of_sequence = slots[slots[:, 0] == number, 1:]
        for part in (ids[number, :length], positions[number, :length], mask[number, 0, :length, :length], of_sequence):
            name.update(part.tobytes())
        keys.append(name.digest())
    return keys
