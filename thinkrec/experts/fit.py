"""The gate stage's work: both gates' routing matrices, the chosen one as the artefact, all compared on valid.

Shapes: S states of users (rows of `Features.user_vectors`), N experts, n interactions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thinkrec.artifacts import ADDED, atomic, faulty_artifact, read_tensors, write_tensors
from thinkrec.experts.gate import Gate, gate_routing, train_gate
from thinkrec.experts.groups import UserGroups
from thinkrec.experts.routing import CASES, centroid_routing, routing_cases
from thinkrec.lm import identity
from thinkrec.lm.mixture import Router
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import PLAIN, TrainSettings
from thinkrec.lm.workbench import Workbench
from thinkrec.metrics import validation
from thinkrec.params import GateParams, TrainerParams

Floats = NDArray[np.float32]
ROUTING_FILE, GATE_FILE = "routing.safetensors", "gate.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Adapter weights by state of a user; `Features.state` names the state of every interaction's user."""

    weights: Floats  # (S, N + 1), rows sum to 1; column 0 is the global adapter
    gate: dict[str, Floats]  # the trained gate's parameters; empty for the centroid rule


def fit_routing(
    bench: Workbench,
    router: Router,
    groups: UserGroups,
    params: GateParams,
    trainer: TrainerParams = PLAIN,
    *,
    late: NDArray[np.bool_],
    batch_tokens: int,
    seed: int,
) -> tuple[Routing, dict[str, Any]]:
    """Fit the chosen gate; a trained one on the rows `late` (n,) of train. Metrics compare it with the others on valid.

    Users that train knows are routed by their fitted vectors; train's own rows and rows of unseen users by vectors
    folded in from what came before. `cases` are the shares of valid's users by what the paper's rule does with them,
    whatever gate is chosen; `mean_weights` are the chosen one's.
    """
    vectors, route = bench.features.user_vectors, bench.features.state
    valid = bench.rows("valid")
    by_rule = centroid_routing(vectors, groups, params.temperature)
    only_global = np.zeros_like(by_rule)
    only_global[:, 0] = 1
    candidates = {"global": only_global, "centroid": by_rule}
    gate_weights: dict[str, Floats] = {}
    metrics: dict[str, Any] = {}
    # With fewer than two experts there is nothing to weigh: the rule is exact, and both kinds are it.
    if params.kind == "trained" and len(groups.centroids) > 1:
        gate, result = train_gate(
            bench.model,
            router,
            bench.layout,
            groups,
            vectors,
            route,
            fit_rows=np.flatnonzero(late),
            valid_rows=valid,
            user=bench.user,
            temperature=params.temperature,
            batch_tokens=batch_tokens,
            settings=TrainSettings(
                name="gate",
                epochs=params.epochs,
                learning_rate=params.learning_rate,
                weight_decay=0.0,
                seed=seed,
                metric=trainer.metric,
                trainer=trainer,
            ),
        )
        candidates["trained"] = gate_routing(gate, groups, vectors)
        gate_weights = {name: weight.detach().cpu().numpy() for name, weight in gate.named_parameters()}
        metrics["epochs"] = result.epochs
    chosen = candidates.get(params.kind, by_rule)
    metrics["valid"] = {}
    for name, weights in candidates.items():
        scores = score(bench.model, bench.layout, valid, router=router, routing=weights, route=route)
        metrics["valid"][name] = validation(bench.user[valid], bench.layout.label[valid], scores)
    states, first = np.unique(route[valid], return_index=True)
    cases = np.bincount(routing_cases(by_rule[states]), minlength=len(CASES)) / len(states)
    metrics["cases"] = dict(zip(CASES, cases.tolist(), strict=True))
    metrics["mean_weights"] = chosen[states].mean(0).tolist()
    group = groups.group[bench.user[valid[first]]]
    metrics["mean_weights_by_group"] = {
        str(number + 1) if number >= 0 else "unseen": chosen[states[group == number]].mean(0).tolist()
        for number in np.unique(group).tolist()
    }
    return Routing(weights=chosen, gate=gate_weights), metrics


def route_states(routing: Routing, groups: UserGroups, vectors: Floats, temperature: float) -> Floats:
    """Weights (k, N + 1) of user states (k, d) that the routing matrix has no row for, by the gate that made it."""
    if not routing.gate:
        return centroid_routing(vectors, groups, temperature)
    gate = Gate(groups.centroids, temperature)
    weights = {name: torch.from_numpy(value) for name, value in routing.gate.items()}
    gate.load_state_dict({"centroids": gate.centroids, **weights})
    return gate_routing(gate, groups, vectors)


def made_with(temperature: float) -> dict[str, Any]:
    """What a routing belongs to: these experts, and the temperature that new states are routed with."""
    return {"added": identity.hash_of(ADDED), "gate.temperature": temperature}


def save(routing: Routing, folder: Path, *, temperature: float) -> None:
    """Write the routing, and the trained gate beside it if there is one, into `folder`."""
    with atomic(folder) as partial:
        partial.mkdir()
        identity.stamp(partial, made_with(temperature))
        write_tensors(partial / ROUTING_FILE, {"weights": routing.weights})
        if routing.gate:
            write_tensors(partial / GATE_FILE, routing.gate)


def load(folder: Path, groups: UserGroups, *, states: int, temperature: float) -> Routing:
    """Read the routing of so many user states (S) to the experts of these groups.

    Raises:
        UserError: there is none, or it is another one's.
    """
    path, gate_path = folder / ROUTING_FILE, folder / GATE_FILE
    tensors = read_tensors(path)
    gate = read_tensors(gate_path) if gate_path.exists() else {}
    identity.check(folder, made_with(temperature))
    n, width = groups.centroids.shape
    if {name: tensor.shape for name, tensor in tensors.items()} != {"weights": (states, n + 1)}:
        raise faulty_artifact(path, f"not the weights of {states} user states and {n} experts")
    if gate and {name: tensor.shape for name, tensor in gate.items()} != {
        "projection": (width, width),
        "global_logit": (),
    }:
        raise faulty_artifact(gate_path, f"not a gate over {width} dimensions")
    return Routing(**tensors, gate=gate)
