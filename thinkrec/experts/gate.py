"""The trained gate (ours; METHOD: experts and fusion): softmax over N + 1 logits.

    logit_n = cos(P e_u, c_n) / tau  (n = 1..N),  logit_0 = g

P starts at the identity and g where the global adapter's mean weight is what the paper's rule gives it, so training
starts at the rule. Everything else is frozen; it is fitted on a late slice of train that no expert saw.

Shapes: S states, B sequences, N experts, d dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from thinkrec.experts.groups import UserGroups
from thinkrec.experts.routing import centroid_routing
from thinkrec.lm.finetune import measures
from thinkrec.lm.losses import recommendation_loss
from thinkrec.lm.mixture import Router
from thinkrec.lm.model import RecommenderLM
from thinkrec.lm.scoring import score
from thinkrec.lm.trainer import Plan, TrainResult, TrainSettings, train
from thinkrec.text.layout import Batch, Layout, batches_by_tokens

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
LEAST_GLOBAL, MOST_GLOBAL = 0.02, 0.98  # the start leaves every adapter a gradient


class Gate(nn.Module):
    """Weights (S, N + 1) of user vectors already in the space of the centroids."""

    centroids: Tensor

    def __init__(self, centroids: Floats, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("centroids", torch.from_numpy(centroids))
        self.projection = nn.Parameter(torch.eye(centroids.shape[1]))
        self.global_logit = nn.Parameter(torch.zeros(()))

    def forward(self, points_Sd: Tensor) -> Tensor:
        turned = points_Sd @ self.projection.T
        cosine = functional.normalize(turned, dim=1, eps=1e-6) @ functional.normalize(self.centroids, dim=1).T
        logits = torch.cat([self.global_logit.expand(len(cosine), 1), cosine / self.temperature], dim=1)
        # Nothing known of the user: the global adapter, whatever is learned.
        nothing = (points_Sd == 0).all(1, keepdim=True)
        only_global = functional.one_hot(torch.zeros(1, dtype=torch.long, device=logits.device), logits.shape[1])
        return torch.where(nothing, only_global.to(logits.dtype), logits.softmax(1))

    @torch.no_grad()
    def start_at(self, points: Floats, global_share: float) -> None:
        """Set the global logit so that the global adapter's mean weight over `points` (S, d) is `global_share`."""
        wanted = min(max(global_share, LEAST_GLOBAL), MOST_GLOBAL)
        below, above = -50.0, 50.0
        for _ in range(60):
            self.global_logit.fill_((below + above) / 2)
            share = float(self(torch.from_numpy(points))[:, 0].mean())
            below, above = (float(self.global_logit), above) if share < wanted else (below, float(self.global_logit))


class GateObjective(nn.Module):
    """L_rec of a batch under the gate's weights; only the gate trains."""

    def __init__(
        self,
        gate: Gate,
        model: RecommenderLM,
        router: Router,
        points: Floats,
        route: NDArray[Any],
        label: NDArray[Any],
    ) -> None:
        super().__init__()
        self.gate, self.model, self.router = gate, model, router
        self.points, self.route = torch.from_numpy(points), torch.from_numpy(route.astype(np.int64))
        self.label = torch.from_numpy(label.astype(np.int64))

    def forward(self, **tensors: Tensor) -> Tensor:
        batch = Batch(**tensors)
        points = self.points[self.route[batch.first_target.cpu()]].to(self.model.device)
        self.router.weights = self.gate(points)
        self.model.eval()  # frozen, and without dropout
        output = self.model(batch)
        label = self.label[batch.target_rows.cpu()].to(output.score.device)
        return recommendation_loss(output.score, label).mean()


def train_gate(
    model: RecommenderLM,
    router: Router,
    layout: Layout,
    groups: UserGroups,
    user_vectors: Floats,
    route: NDArray[Any],
    *,
    fit_rows: Rows,
    valid_rows: Rows,
    user: NDArray[Any],
    temperature: float,
    batch_tokens: int,
    settings: TrainSettings,
) -> tuple[Gate, TrainResult]:
    """Fit the gate on `fit_rows`; the epoch that `settings.metric` says, measured on `valid_rows`, stays."""
    points = groups.project(user_vectors)
    gate = Gate(groups.centroids, temperature)
    states = np.unique(route[fit_rows])
    states = states[np.any(user_vectors[states] != 0, axis=1)]  # of the others the gate has no say
    gate.start_at(points[states], float(centroid_routing(user_vectors[states], groups, temperature)[:, 0].mean()))
    gate.to(model.device)
    objective = GateObjective(gate, model.requires_grad_(False), router, points, route, layout.label)
    windows = layout.scoring_windows(fit_rows, route[fit_rows].astype(np.int64))
    batches = list(batches_by_tokens(layout, windows, batch_tokens))

    def steps_of(epoch: int) -> Sequence[Any]:
        return [batches[index] for index in np.random.default_rng([settings.seed, epoch]).permutation(len(batches))]

    def validate() -> dict[str, float]:
        routing = gate_routing(gate, groups, user_vectors)
        scores = score(model, layout, valid_rows, router=router, routing=routing, route=route)
        return measures(user[valid_rows], layout.label[valid_rows], scores)

    plan = Plan(
        steps=steps_of,
        collate=lambda windows: layout.collate(windows).tensors(),
        inputs=[layout, points, route, user, fit_rows, valid_rows, temperature],
    )
    return gate, train(objective, plan, validate, settings)


@torch.no_grad()
def gate_routing(gate: Gate, groups: UserGroups, vectors: Floats) -> Floats:
    """The routing matrix (S, N + 1) of user vectors (S, d) by a gate."""
    points = torch.from_numpy(groups.project(vectors)).to(gate.projection.device)
    return gate(points).cpu().numpy()
