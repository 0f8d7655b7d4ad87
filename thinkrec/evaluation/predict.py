"""Predictions of every model on the same rows, and the reasons that ours gives for some of them.

Shapes: n evaluated rows, u users, e adapters (the global one, then N experts).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from thinkrec.artifacts import BASELINES, SPLITS
from thinkrec.errors import UserError
from thinkrec.evaluation.models import BEST, CENTROID, GLOBAL, ORACLE, OURS
from thinkrec.evaluation.tables import EVALUATED
from thinkrec.experts.groups import UserGroups
from thinkrec.experts.routing import Routing
from thinkrec.experts.rule import routing_cases
from thinkrec.history import ScoredModel, history_bounds, warm_rows
from thinkrec.lm.loaded import LoadedModel
from thinkrec.metrics import Floats, log_losses, per_user
from thinkrec.params import EvaluateParams
from thinkrec.reasons.decoding import Decoding, Judge, write_answers

Rows = NDArray[np.int64]


def predict(
    loaded: LoadedModel, routing: Routing, baselines: pd.DataFrame, truth: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """Probabilities of every model on all valid and test rows (schema PREDICTIONS), and the models' column names.

    Ours stands first, routed by the stage gate; then ours under the static protocol; with experts, the global adapter
    alone, the paper's rule (unless that is how ours is routed) and the oracle expert; the columns of `baselines`
    (schema BASELINES); and the truth where it is known.

    Raises:
        UserError: `baselines` holds other rows than those, or an expert changes no score.
    """
    table, state = loaded.interactions, loaded.features.state
    rows = np.flatnonzero(table["split"].isin(EVALUATED).to_numpy())
    if not np.array_equal(baselines["row"], rows):
        raise UserError(f"{BASELINES}: its rows are not the valid and test rows; rerun its stage: dvc repro baselines")
    by_rule = routing.by_rule(loaded.features.user_vectors)
    columns = table.loc[rows, ["split", "user", "item", "label"]].reset_index(drop=True)
    predictions = columns.assign(
        row=rows, **known_before(table, routing.groups, rows), case=routing_cases(by_rule)[state[rows]]
    )
    adapters = np.eye(routing.weights.shape[1], dtype=np.float32)
    alone = [loaded.probability(rows, weights, progress=f"scoring: adapter {k}") for k, weights in enumerate(adapters)]
    alone_ne = np.stack(alone, axis=1)
    for k in range(1, len(alone)):
        if len(rows) and np.array_equal(alone[k], alone[0]):
            raise UserError(f"expert_{k}: changes no score, so it learned nothing; train it longer (experts.epochs)")

    def routed(weights: NDArray[np.float32], name: str) -> Floats:
        """Rows that one adapter serves have been scored; the others are now."""
        by_row = weights[state[rows]]
        probability = alone_ne[np.arange(len(rows)), by_row.argmax(axis=1)]
        mixed = by_row.max(axis=1) < 1
        probability[mixed] = loaded.probability(rows[mixed], weights, progress=f"scoring: {name}")
        return probability

    ours_static = ScoredModel(OURS, "static").column
    models = {
        OURS: routed(routing.weights, OURS),
        ours_static: loaded.under_static_protocol().probability(rows, progress=f"scoring: {ours_static}"),
    }
    if len(adapters) > 1:
        models[GLOBAL] = alone_ne[:, 0]
        states = np.unique(state[rows])
        if not np.array_equal(by_rule[states], routing.weights[states]):
            models[CENTROID] = routed(by_rule, CENTROID)
        user_of_split = predictions.groupby(["split", "user"], observed=True).ngroup()
        models[ORACLE] = expert_oracle(user_of_split, predictions["label"], alone_ne)
    models |= {name: baselines[name].to_numpy() for name in baselines.columns.drop("row")}
    if len(truth):
        models[BEST] = truth["probability"].to_numpy()[rows]
    return predictions.assign(**{name: np.asarray(column) for name, column in models.items()}), list(models)


def known_before(table: pd.DataFrame, groups: UserGroups, rows: Rows) -> dict[str, NDArray[np.generic]]:
    """What slices go by, of valid and test `rows` (n): `warm`, `history`, `popularity` and `group` of PREDICTIONS.

    All of it was known before the row happened: it rests on strictly earlier rows and on train.
    """
    start, end = history_bounds(table["user"].to_numpy(), table["timestamp"].to_numpy())
    item, train = table["item"].to_numpy(), (table["split"] == "train").to_numpy()
    in_train = np.bincount(item[train], minlength=int(item.max(initial=-1)) + 1)
    return {
        "warm": warm_rows(table)[rows],
        "history": (end - start)[rows].astype(np.int32),
        "popularity": in_train[item[rows]].astype(np.int32),
        "group": groups.group[table["user"].to_numpy()[rows]].astype(np.int8),
    }


def expert_oracle(user: ArrayLike, label: ArrayLike, probability_ne: Floats) -> Floats:
    """Each row's probability (n) by the one adapter that ranks its user's rows best, in hindsight.

    `user` (n) numbers the users, or users by split. Best is the highest AUC of the user; where that ties, or the user
    has one class only, the lowest log-loss. It has seen the labels that it is measured on: the highest UAUC that
    routing each user to one adapter can have.
    """
    user_n = np.unique(user, return_inverse=True)[1]
    by_adapter = probability_ne.T
    auc_ue = np.stack([per_user(user_n, label, score, ks=(), seed=0).values["uauc"] for score in by_adapter], axis=1)
    loss_ue = np.stack([np.bincount(user_n, log_losses(label, score)) for score in by_adapter], axis=1)
    best_u = np.lexsort((loss_ue, -np.nan_to_num(auc_ue)), axis=1)[:, 0]
    return probability_ne[np.arange(len(user_n)), best_u[user_n]]


def write_reasons(
    loaded: LoadedModel,
    predictions: pd.DataFrame,
    traces: pd.DataFrame,
    judge: Judge,
    params: EvaluateParams,
    *,
    seed: int,
) -> pd.DataFrame:
    """Reasons for `params.reasons` test rows (schema REASONS): those with a held-out trace first, then random ones.

    Of several `params.candidates`, the one that the `judge` finds best stays.
    """
    test = predictions[predictions["split"] == SPLITS[-1]].set_index("row")
    teacher = traces.set_index("row")["text"].reindex(test.index).fillna("")
    shuffled = np.random.default_rng(seed).permutation(len(test))
    first = np.argsort(teacher.to_numpy()[shuffled] == "", kind="stable")[: params.reasons]
    chosen = np.sort(shuffled[first])
    rows = test.index.to_numpy()[chosen]
    decoding = Decoding.from_params(params, seed=seed)
    texts = write_answers(loaded, rows, decoding, judge=judge, progress="reasons") if len(rows) else []
    return pd.DataFrame(
        {
            "row": rows,
            "label": test["label"].to_numpy()[chosen],
            "probability": test[OURS].to_numpy()[chosen],
            "reason": texts,
            "teacher": teacher.to_numpy()[chosen],
        }
    )
