"""A search for settings, by a tree-structured Parzen estimator (Bergstra et al. 2011)."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sgmft.errors import SgmftError, needs_extra
from sgmft.evaluation.compare.catalogue import Row
from sgmft.models.registry import get_method

Settings = Mapping[str, Any]
LEAST_DECAY = 1e-4  # of the weights, also where a preset has none


def suggest(row: Row, tried: Sequence[Settings], losses: Sequence[float]) -> dict[str, Any]:
    """Return what a row should try next: its own settings first, then what the losses suggest.

    Searched are the learning rate (30 times less to more), the weight decay (1e-4 to 0.3), dropout
    (0 to 0.5) and the width (half, as it is, or double), but for what the row itself sets. A trial
    that failed has a loss of infinity. The same trials give the same suggestion.
    """
    with needs_extra("search", "sgmft compare --search"):
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution
    method = get_method(row.method)
    preset = method.preset(row.preset, row.settings)
    own = {x: preset.model.get(x, getattr(method.config, x, None)) for x in ("dropout", "width")}
    own["learning_rate"] = rate = preset.train.learning_rate
    own["weight_decay"] = max(LEAST_DECAY, preset.train.weight_decay)
    space: dict[str, Any] = {
        "learning_rate": FloatDistribution(rate / 30, rate * 30, log=True),
        "weight_decay": FloatDistribution(LEAST_DECAY, 0.3, log=True),
    }
    if own["dropout"] is not None:
        space["dropout"] = FloatDistribution(0, 0.5)
    if own["width"]:
        widths = []
        for width in (own["width"] // 2, own["width"], 2 * own["width"]):
            with suppress(SgmftError):  # heads have to divide it
                method.preset(row.preset, {**row.settings, "width": width})
                widths.append(width)
        space["width"] = CategoricalDistribution(widths)
    space = {name: kind for name, kind in space.items() if name not in row.settings}
    if not tried:
        return {name: own[name] for name in space}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=len(tried)))
    for settings, loss in zip(tried, losses, strict=True):
        failed = {"state": optuna.trial.TrialState.FAIL} if math.isinf(loss) else {"value": loss}
        study.add_trial(optuna.create_trial(params={**settings}, distributions=space, **failed))
    return dict(study.ask(space).params)
