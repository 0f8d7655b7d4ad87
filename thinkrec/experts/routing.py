"""The routing of users to a mixture of adapters: the stage gate's artefact, and what it says of users it never saw.

Shapes: S states of users (rows of the feature model's user vectors), N experts, d dimensions, n interactions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thinkrec.artifacts import GATE, atomic, faulty_artifact, read_tensors, write_tensors
from thinkrec.errors import UserError
from thinkrec.experts.gate import Gate, train_gate
from thinkrec.experts.groups import UserGroups
from thinkrec.experts.rule import CASES, centroid_routing, routing_cases
from thinkrec.experts.training import Experts, load_experts
from thinkrec.experts.weights import ROUTING_FILE, load_weights, routing_provenance
from thinkrec.history import LATE_SHARE, late_train_rows
from thinkrec.lm.adapters import install_mixture, read_lora
from thinkrec.lm.loaded import LoadedModel, open_global
from thinkrec.metrics import validation
from thinkrec.params import GateParams, Params
from thinkrec.provenance import write_provenance

Floats = NDArray[np.float32]
GATE_FILE = "gate.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Which mixture of adapters serves a user; `Features.state` names the state of every interaction's user."""

    groups: UserGroups
    temperature: float
    weights: Floats  # (S, N + 1), rows sum to 1; column 0 is the global adapter
    gate: Gate | None = None  # None for the rule

    def by_rule(self, vectors: Floats) -> Floats:
        """Weights (k, N + 1) of user vectors (k, d) by the paper's rule."""
        return centroid_routing(vectors, self.groups, self.temperature)

    def of_vectors(self, vectors: Floats) -> Floats:
        """Weights (k, N + 1) of user vectors (k, d) that have no row of their own, by the gate that made the rows."""
        return self.by_rule(vectors) if self.gate is None else self.gate.route(vectors)


def fit_routing(loaded: LoadedModel, groups: UserGroups, params: Params) -> tuple[Routing, dict[str, Any]]:
    """Fit the gate that params.yaml names, a trained one on the late rows of train; compare the gates on valid.

    Users in train are routed by their fitted vectors; train's own rows, and users it never saw, by vectors folded in
    from what came before. The metrics' `cases` are what the paper's rule does with valid's users, as shares, whichever
    gate is chosen; `mean_weights` are the chosen gate's.
    """
    vectors, state = loaded.features.user_vectors, loaded.features.state
    temperature = params.gate.temperature
    by_rule = centroid_routing(vectors, groups, temperature)
    only_global = np.zeros_like(by_rule)
    only_global[:, 0] = 1
    gate: Gate | None = None
    metrics: dict[str, Any] = {}
    valid = loaded.rows("valid")
    with loaded.model.sharing_layers():
        # With fewer than two experts there is nothing to weigh: the rule is exact, and both kinds of gate are the rule.
        if params.gate.kind == "trained" and len(groups.centroids) > 1:
            late = np.flatnonzero(late_train_rows(loaded.interactions, LATE_SHARE))
            gate, result = train_gate(loaded, groups, late, params)
            metrics["epochs"] = result.epochs
        metrics["valid"] = {
            name: validation(loaded.user[valid], loaded.layout.label[valid], loaded.score(valid, weights))
            for name, weights in (("global", only_global), ("centroid", by_rule))
        }
    if gate is not None:  # its best epoch was measured as it ended
        metrics["valid"]["trained"] = {name: result.best[name] for name in metrics["valid"]["global"]}
    chosen = by_rule if gate is None else gate.route(vectors)
    states, first = np.unique(state[valid], return_index=True)
    cases = np.bincount(routing_cases(by_rule[states]), minlength=len(CASES)) / len(states)
    metrics["cases"] = dict(zip(CASES, cases.tolist(), strict=True))
    metrics["mean_weights"] = chosen[states].mean(0).tolist()
    group = groups.group[loaded.user[valid[first]]]
    metrics["mean_weights_by_group"] = {
        str(number + 1) if number >= 0 else "unseen": chosen[states[group == number]].mean(0).tolist()
        for number in np.unique(group).tolist()
    }
    return Routing(groups=groups, temperature=temperature, weights=chosen, gate=gate), metrics


def save_routing(routing: Routing, params: GateParams, root: Path = Path()) -> None:
    """Write the routing of the project at `root`, the trained gate beside its weights if there is one."""
    with atomic(root / GATE) as partial:
        partial.mkdir()
        write_provenance(partial, routing_provenance(params, root))
        write_tensors(partial / ROUTING_FILE, {"weights": routing.weights})
        if routing.gate is not None:
            learned = {name: weight.detach().cpu().numpy() for name, weight in routing.gate.named_parameters()}
            write_tensors(partial / GATE_FILE, learned)


def load_routing(groups: UserGroups, params: GateParams, root: Path = Path(), *, states: int) -> Routing:
    """Read the routing of so many user states (S) to the experts of these groups; a UserError if it is of others."""
    folder, weights = root / GATE, load_weights(groups, params, root, states=states)
    gate = None
    if (folder / GATE_FILE).exists():
        gate = Gate(groups, params.temperature)
        learned = {name: torch.from_numpy(value) for name, value in read_tensors(folder / GATE_FILE).items()}
        try:
            gate.load_state_dict({"centroids": gate.centroids, **learned})
        except RuntimeError:
            width = groups.centroids.shape[1]
            raise faulty_artifact(folder / GATE_FILE, f"not a gate over {width} dimensions") from None
    return Routing(groups=groups, temperature=params.temperature, weights=weights, gate=gate)


def open_experts(params: Params, root: Path = Path()) -> tuple[LoadedModel, Experts]:
    """The global model of the project at `root` with the mixture of its experts in it, and those experts."""
    loaded, experts = open_global(params, root), load_experts(params, root)
    adapter = loaded.adapter
    if adapter is not None and not any(b.any() for _, b, _ in read_lora(adapter).values()):
        raise UserError(f"{adapter}: changes no score, so it learned nothing; train it longer (sft.epochs)")
    batch_weights = install_mixture(loaded.model.backbone, [adapter, *experts.folders])
    return replace(loaded, batch_weights=batch_weights), experts


def open_finished(params: Params, root: Path = Path()) -> tuple[LoadedModel, Routing]:
    """The finished model of the project at `root`, every user's adapter weights with it, and their routing.

    A UserError says which artefact is missing, or does not belong to the others or to params.yaml.
    """
    loaded, experts = open_experts(params, root)
    routing = load_routing(experts.groups, params.gate, root, states=len(loaded.features.user_vectors))
    return replace(loaded, routing_weights=routing.weights), routing
