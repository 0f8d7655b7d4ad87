"""The late slice of train that experts leave alone, so that a gate can be fitted on rows none of them has seen."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def late_train_rows(interactions: pd.DataFrame, share: float) -> NDArray[np.bool_]:
    """Which rows (n,) are among the latest `share` of the train split, whole seconds kept together."""
    train = (interactions["split"] == "train").to_numpy()
    time = interactions["timestamp"].to_numpy()
    return train & (time >= np.quantile(time[train], 1 - share, method="higher"))
