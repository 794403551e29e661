"""Log densities of a response's rows at draws of the linear predictor and of the parameters."""

import numpy as np

from sklmm.engine.likelihood.likelihood import Likelihood, evaluation
from sklmm.families.binomial import log_binomial
from sklmm.families.constraints import CONSTRAINTS


def log_densities(response, eta, parameters, parts=()):
    """log f [n_rows, S] at eta [n_rows, d, S]; parameters hold S values, or one, by name.

    `parts` are the design's, of the parameters that have a model.

    A row's repetitions are one term, and so are the trials of a binomial row.
    """
    family, y, weights = response.family, response.y, response.weights
    constants = family.constants(y, response.data)[:, None]
    like = Likelihood.of(family, response.n_classes, response.models)
    if like.wide:
        from sklmm.engine.likelihood.parameters import wide

        y = wide(y, response, parts)
    n_draws = eta.shape[-1]
    raw = [
        CONSTRAINTS[kind].unconstrain(np.broadcast_to(parameters[name], n_draws))
        for name, kind in zip(like.names, like.constraints, strict=True)
    ]
    raw = np.reshape(raw, (-1, n_draws))
    eta = eta.reshape(-1, n_draws)
    if family.weights == "precision":
        # In units of each row's own SD over sigma.
        unit = response.sigma_unit * np.sqrt(weights)
        value = np.asarray(evaluation(like).by_row(y * unit, eta * unit[:, None], raw)[0])
        return value + np.log(unit)[:, None]
    value = np.asarray(evaluation(like).by_row(y, eta, raw)[0])
    value = weights[:, None] * (value + constants)
    if family.weights == "trials":
        value += log_binomial(y * weights, weights)[:, None]
    return value
