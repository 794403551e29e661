"""Second derivatives of rows' densities along directions: one pass, and no step in them."""

import numpy as np

from sklmm.engine.linalg.newton import STEP


def information(likelihood, y, w, weights, eta, raw, own, shared):
    """[m, m, C] of some rows: see `engine.rows.protocol.Rows.information`.

    y and w of their observations, `weights` [n] of the rows; eta [n, C]; directions of eta, `own`
    [n, k, C] of each draw and `shared` [n, s] by all.

    Of one predictor the curvature is the density's own. A density of several knows only its
    diagonal, and one has no second derivatives in its parameters: differences of the score.
    """
    n, C = eta.shape
    k, s, q = own.shape[1], shared.shape[1], len(raw)
    along = np.empty((C, n, k + s))
    along[:, :, :k], along[:, :, k:] = own.transpose(2, 0, 1), shared
    bent = np.zeros((C, n, k + s))
    if len(y) == n:
        (curvature,) = likelihood.observed(y, eta, raw)
        np.multiply((weights[:, None] * curvature).T[:, :, None], along, out=bent)
    else:
        for i in range(k + s):
            move = along[:, :, i].T
            h = STEP / max(np.abs(move).max(initial=0.0), 1e-300)
            up, down = (likelihood.slopes(y, w, eta + e * move, raw)[1] for e in (h, -h))
            bent[:, :, i] = ((down - up) / (2 * h)).T
    out = along.transpose(0, 2, 1) @ bent
    for i, e in enumerate(STEP * np.eye(q)):
        up, down = (likelihood.slopes(y, w, eta, raw + d[:, None])[1:] for d in (e, -e))
        by_eta, by_raw = ((b - a) / (2 * STEP) for a, b in zip(up, down, strict=True))
        cross, at = np.einsum("cnm,nc->cm", along, by_eta), k + s - q + i
        out[:, at] += cross
        out[:, :, at] += cross
        out[:, at, k + s - q :] += by_raw.T
    return out.transpose(1, 2, 0)
