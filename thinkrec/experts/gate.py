"""The trained gate (ours; METHOD: experts and fusion): softmax over N + 1 logits.

    logit_n = cos(P e_u, c_n) / tau  (n = 1..N),  logit_0 = g

P starts at the identity, and g where the global adapter's mean weight is what the paper's rule gives it: training
starts at the rule. Everything else is frozen. The gate is fitted on a late slice of train that no expert saw.

Shapes: S states of users, N experts, d dimensions, k users.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logsumexp
from torch import Tensor, nn
from torch.nn import functional

from thinkrec.experts.groups import UserGroups
from thinkrec.experts.rule import centroid_cosines, centroid_routing
from thinkrec.lm.finetune import measures
from thinkrec.lm.loaded import LoadedModel
from thinkrec.lm.losses import recommendation_loss
from thinkrec.lm.trainer import Plan, TrainResult, TrainSettings, train
from thinkrec.params import Params
from thinkrec.text.layout import Batch, Window, batches_by_tokens

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
LEAST_GLOBAL, MOST_GLOBAL = 0.02, 0.98  # the start leaves every adapter a gradient
FARTHEST_LOGIT = 50.0  # that the start looks at


class Gate(nn.Module):
    """Routing weights (S, N + 1) of user vectors (S, d) in the space of the groups' centroids."""

    centroids: Tensor

    def __init__(self, groups: UserGroups, temperature: float) -> None:
        super().__init__()
        self.groups, self.temperature = groups, temperature
        self.register_buffer("centroids", torch.from_numpy(groups.centroids))
        self.projection = nn.Parameter(torch.eye(groups.centroids.shape[1]))
        self.global_logit = nn.Parameter(torch.zeros(()))

    def forward(self, points_Sd: Tensor) -> Tensor:
        projected = points_Sd @ self.projection.T
        cosine = functional.normalize(projected, dim=1, eps=1e-6) @ functional.normalize(self.centroids, dim=1).T
        logits = torch.cat([self.global_logit.expand(len(cosine), 1), cosine / self.temperature], dim=1)
        # Without a vector the global adapter serves, whatever is learned.
        unknown = (points_Sd == 0).all(1, keepdim=True)
        only_global = functional.one_hot(torch.zeros(1, dtype=torch.long, device=logits.device), logits.shape[1])
        return torch.where(unknown, only_global.to(logits.dtype), logits.softmax(1))

    @torch.no_grad()
    def route(self, vectors: Floats) -> Floats:
        """The routing weights (S, N + 1) of user vectors (S, d) as the feature model gives them."""
        points = torch.from_numpy(self.groups.project(vectors)).to(self.projection.device)
        return self(points).cpu().numpy()

    @torch.no_grad()
    def start_at(self, points: Floats, global_share: float) -> None:
        """Set the global logit so that the global adapter's mean weight over `points` (S, d) is `global_share`.

        With P the identity, the weight of a user is sigmoid(g - log sum_n exp(cos_n / tau)).
        """
        share = np.clip(global_share, LEAST_GLOBAL, MOST_GLOBAL)
        experts = logsumexp(centroid_cosines(points, self.groups.centroids) / self.temperature, axis=1)
        logit = brentq(lambda g: expit(g - experts).mean() - share, -FARTHEST_LOGIT, FARTHEST_LOGIT)
        self.global_logit.fill_(logit)


class GateObjective(nn.Module):
    """L_rec of a batch under the gate's weights; only the gate trains."""

    def __init__(self, gate: Gate, loaded: LoadedModel) -> None:
        super().__init__()
        assert loaded.batch_weights is not None, "the experts are not in the model"
        self.gate, self.model = gate, loaded.model.requires_grad_(False)
        self.batch_weights = loaded.batch_weights
        self.points = torch.from_numpy(gate.groups.project(loaded.features.user_vectors))
        self.state = torch.from_numpy(loaded.features.state.astype(np.int64))
        self.label = torch.from_numpy(loaded.layout.label.astype(np.int64))

    def forward(self, **tensors: Tensor) -> Tensor:
        batch = Batch(**tensors)
        points = self.points[self.state[batch.first_target.cpu()]].to(self.model.device)
        self.batch_weights.tensor = self.gate(points)
        self.model.eval()  # frozen, and without dropout
        output = self.model(batch)
        label = self.label[batch.target_rows.cpu()].to(output.score.device)
        return recommendation_loss(output.score, label).mean()


def train_gate(loaded: LoadedModel, groups: UserGroups, fit_rows: Rows, params: Params) -> tuple[Gate, TrainResult]:
    """Fit a gate on `fit_rows` of a model with its experts; the epoch that is best on valid stays."""
    layout, state, temperature = loaded.layout, loaded.features.state, params.gate.temperature
    valid = loaded.rows("valid")
    gate = Gate(groups, temperature)
    # It starts at the rule over the states of `fit_rows` that have a vector; if none has, over all states that have.
    vectors = loaded.features.user_vectors
    has_vector = np.any(vectors != 0, axis=1)
    states = np.unique(state[fit_rows])
    vectors = vectors[states[has_vector[states]] if has_vector[states].any() else has_vector]
    if len(vectors):
        gate.start_at(groups.project(vectors), float(centroid_routing(vectors, groups, temperature)[:, 0].mean()))
    gate.to(loaded.model.device)
    windows = layout.scoring_windows(fit_rows, state[fit_rows].astype(np.int64))
    batches = list(batches_by_tokens(layout, windows, params.sft.batch_tokens))

    def steps_of(epoch: int) -> list[list[Window]]:
        return [batches[index] for index in np.random.default_rng([params.seed, epoch]).permutation(len(batches))]

    def validate() -> dict[str, float]:
        scores = loaded.score(valid, gate.route(loaded.features.user_vectors))
        return measures(loaded.user[valid], layout.label[valid], scores)

    settings = TrainSettings.of("gate", params, params.gate)
    objective = GateObjective(gate, loaded)
    plan = Plan(
        steps=steps_of,
        collate=lambda windows: layout.collate(windows).tensors(),
        inputs=[layout, loaded.model.slot_values, groups, fit_rows, valid, params.gate],
    )
    return gate, train(objective, plan, validate, settings)
