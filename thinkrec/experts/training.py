"""The experts: one LoRA for each user group (METHOD: experts and fusion).

Of an expert only the last k layers train. Where the global model is a backbone of its own, the expert is a fresh LoRA
on those layers; where it is a LoRA, the expert starts as a copy of that. `experts.added` names files of user ids: each
makes a group more, with an expert of its own, and changes nothing of the experts that the clustering alone gives.

Shapes: U users.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.experts.added import Rows, add_group, read_members
from thinkrec.experts.groups import UserGroups, group_users, load_groups, save_groups, separation
from thinkrec.history import LATE_SHARE, late_train_rows
from thinkrec.lm.adapters import add_lora, first_adapted_layer, first_differing, layers_of, read_lora, save_adapter
from thinkrec.lm.finetune import finetune
from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.trainer import TrainSettings
from thinkrec.params import ExpertParams, LoraParams, Params
from thinkrec.provenance import check_provenance, hash_of, parameters, write_provenance

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class Experts:
    """The user groups and the PEFT directories of their experts, in the order of the groups."""

    groups: UserGroups
    folders: list[Path]


def fit_experts(loaded: LoadedModel, params: Params, folder: Path) -> dict[str, Any]:
    """Group the users, train an expert for each group, and write all of it into `folder`; returns the metrics."""
    vectors = loaded.features.user_vectors[: int(loaded.user.max()) + 1]
    groups, metrics = group_users(vectors, params.experts, seed=params.seed)
    grouped = len(groups.centroids)
    members: list[Rows] = []
    counts: list[dict[str, int]] = []
    if params.experts.added:
        users = artifacts.read_table(artifacts.USERS, root=loaded.root)
        members, counts = read_members(params.experts.added, users, groups)
    results = [train_expert(loaded, groups, number, folder, params) for number in range(1, grouped + 1)]
    for of_file in members:
        groups = add_group(groups, of_file, vectors)
    for number, count in enumerate(counts, grouped + 1):
        results.append(train_expert(loaded, groups, number, folder, params) | count)
    save_groups(groups, folder)
    write_provenance(folder, _provenance(params.experts, loaded.root))
    return {**metrics, **(separation(groups, vectors) if members else {}), "experts": results}


def train_expert(
    loaded: LoadedModel, groups: UserGroups, number: int, folder: Path, params: Params
) -> dict[str, float]:
    """Train expert `number` (from 1) and write it below `folder`; returns its best epoch's measures.

    It learns from its users' train rows, but for the late ones, which are the gate's; their valid rows name its epoch.
    Where most layers are frozen, all epochs have the same windows: the frozen layers run once for each (`lm.adapters`),
    and drop nothing out.
    """
    experts = params.experts
    of_group = groups.group[loaded.user] == number - 1
    late = late_train_rows(loaded.interactions, LATE_SHARE)
    train, valid = loaded.rows("train"), loaded.rows("valid")
    train_rows = train[(of_group & ~late)[train]]
    if not len(train_rows):
        raise UserError(
            f"expert_{number}: train has nothing of its users before its latest {LATE_SHARE:.0%}, which is the gate's; "
            "give it more users"
        )
    expert = add_expert(loaded.model, params.lora, layers=experts.layers, global_adapter=loaded.adapter)
    model, layout = loaded.prompted(slots=loaded.recipe.expert_slots)
    if loaded.recipe.expert_learns == "labels":
        layout = replace(layout, reasons={})
    mostly_frozen = 2 * first_differing(model.backbone) > len(layers_of(model.backbone))
    with model.sharing_layers() if mostly_frozen else nullcontext():
        result = finetune(
            model,
            layout,
            train_rows=train_rows,
            valid_rows=valid[of_group[valid]],
            user=loaded.user,
            params=params.sft,
            settings=TrainSettings.of(f"expert_{number}", params, experts),
            redraw=not mostly_frozen,
        )
    save_adapter(expert, expert_folder(folder, number), base=str(loaded.base))
    expert.unload()
    return {"expert": number, **result.best}


def add_expert(
    model: RecommenderLM, params: LoraParams, *, layers: int, global_adapter: Path | None = None
) -> PeftModel:
    """Put an expert into the model, in place; only its last `layers` layers train. Returns its PEFT handle.

    With a `global_adapter` it starts as a copy of that, else at zero. A UserError says that there are fewer layers.
    """
    model.requires_grad_(False)
    if global_adapter is None:
        return add_lora(model.backbone, params, layers=layers)
    first = first_adapted_layer(model.backbone, layers)
    read_lora(global_adapter)  # or peft would ask the hub for a missing folder
    from peft import PeftModel

    expert = PeftModel.from_pretrained(model.backbone, str(global_adapter), is_trainable=True)
    for name, weight in expert.named_parameters():
        weight.requires_grad_("lora_" in name and int(name.partition(".layers.")[2].partition(".")[0]) >= first)
    return expert


def expert_folder(folder: Path, number: int) -> Path:
    """Where expert `number` (from 1: column 0 of the routing weights is the global adapter) lives."""
    return folder / f"expert_{number}"


def load_experts(params: Params, root: Path = Path()) -> Experts:
    """The groups and experts of the project at `root`; a UserError if they are not those of params.yaml."""
    folder = root / artifacts.EXPERTS
    groups = load_groups(folder)
    check_provenance(folder, _provenance(params.experts, root))
    folders = [expert_folder(folder, number) for number in range(1, len(groups.centroids) + 1)]
    for expert in folders:
        if not expert.is_dir():
            raise artifacts.missing_artifact(expert)
    return Experts(groups, folders)


def _provenance(params: ExpertParams, root: Path) -> dict[str, Any]:
    """What the experts belong to: the global model, the groups that were asked for, the files of users by name."""
    asked = parameters("experts", params, "n", "grouping", "space", "min_users", "added")
    names = [Path(path).name for path in asked["experts.added"]]
    return {"sft": hash_of(root / artifacts.SFT), **asked, "experts.added": names}
