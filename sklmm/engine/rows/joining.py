"""The problem of a row's several predictors, each with columns and terms of its own.

Terms over the same levels become one block, whichever predictors they are in: the levels of all of
them are eliminated together, and chains see them whitened by each other. A `Joint` leads back.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag

from sklmm.covariances.beside import Beside
from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.predictors import PredictorRows
from sklmm.engine.rows.standardize import BlockData, Problem, levels_of, standard_blocks
from sklmm.engine.rows.widened import whitened


class Term(NamedTuple):
    """A term's block, its columns there, and what of the block's reported values is its own."""

    block: int
    columns: slice
    reported: slice


class Joint(NamedTuple):
    """How a problem was joined: the one of the `mean` alone, and `terms`, in their order."""

    mean: Problem
    terms: tuple

    def effects(self, parts):
        """Of each block's array [J, r, ...], each term's."""
        return [parts[term.block][:, term.columns] for term in self.terms]

    def covariances(self, parts):
        """Of each block's [..., r, r], each term's."""
        return [parts[t.block][..., t.columns, t.columns] for t in self.terms]

    def together(self, covariances):
        """Of each term's covariance [r, r] each block's."""
        own = {}
        for term, covariance in zip(self.terms, covariances, strict=True):
            own.setdefault(term.block, []).append(covariance)
        return [block_diag(*own[k]) for k in range(len(own))]

    def order(self, counts):
        """Places of the terms' reported values among the blocks', which are `counts` each."""
        first = np.cumsum([0, *counts])
        places = [first[t.block] + np.arange(t.reported.start, t.reported.stop) for t in self.terms]
        return np.concatenate([np.zeros(0, int), *places])


def joined(problem, parts, names):
    """The problem of the mean's predictor and those of `parts` of a design, one after another.

    `names` are the parameters that these are of. Their bases lack y's scale, for it is not theirs.
    """
    main = problem.rows
    rows, bases, blocks, z_bases = [main], [problem.basis], [*problem.blocks], [*problem.z_bases]
    log_det = problem.log_det_basis
    for own, name in zip(parts, names, strict=True):
        X, basis, log_det_X = whitened(own, main.weights, problem.n)
        offset = np.zeros(main.n_rows) if own.offset is None else own.offset
        offset = offset - np.log(problem.unit_of(name))
        made, zs, own_bases = standard_blocks(own, main.weights, problem.n, 1.0)
        of_terms = (*levels_of(own), zs)
        rows.append(LocalRows(main.y, X, main.weights, *of_terms, offset if offset.any() else None))
        bases.append(basis / problem.y_scale)
        z_bases += [A / problem.y_scale for A in own_bases]
        blocks += made
        log_det += log_det_X + 2 * len(basis) * np.log(problem.y_scale)
    priors = problem.priors
    apart = priors is not None and any(prior is not None for prior in priors.sds)
    groups = _groups(blocks, [refs for part in rows for refs in part.refs], apart)
    return replace(
        problem,
        rows=PredictorRows.stacked_of(rows, groups),
        blocks=tuple(_together([blocks[k] for k in group]) for group in groups),
        basis=block_diag(*bases),
        z_bases=tuple(block_diag(*(z_bases[k] for k in group)) for group in groups),
        log_det_basis=float(log_det),
        d=len(rows),
        joint=Joint(problem, _terms(blocks, groups)),
    )


def _groups(blocks, refs, apart):
    """Lists of numbers of terms over the same levels, in their order; one each if `apart`."""
    groups = []
    for k, block in enumerate(blocks):
        for group in groups:
            other = blocks[group[0]]
            alone = apart or block.coupled or other.coupled or block.n_levels != other.n_levels
            if not alone and np.array_equal(refs[k], refs[group[0]]):
                group.append(k)
                break
        else:
            groups.append([k])
    return groups


def _together(blocks):
    """One `BlockData` of several."""
    if len(blocks) == 1:
        return blocks[0]
    covariance = Beside(tuple(block.covariance for block in blocks))
    return BlockData(blocks[0].n_levels, covariance.r, covariance)


def _terms(blocks, groups):
    """The `Term` of each of the blocks that were joined in groups."""
    out = {}
    for number, group in enumerate(groups):
        beside = Beside(tuple(blocks[k].covariance for k in group))
        for k, columns, reported in zip(group, beside.columns, beside.reports, strict=True):
            out[k] = Term(number, columns, reported)
    return tuple(out[k] for k in range(len(blocks)))
