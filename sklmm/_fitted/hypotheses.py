"""Hypotheses about the coefficients of a fitted model: as they are written, and of its terms."""

import re

import numpy as np
import pandas as pd
from scipy.linalg import null_space

from sklmm._fitted.contrasts import ROUNDING, completed, determined_part, joint_test, untold
from sklmm._tables import Table
from sklmm.design.hypotheses import type_three, type_two

#: Characters that a name goes on with.
_WORD = r"[\w.\[\]`]"


def combinations(model, L):
    """(L [q, .] of (coef, natural), rhs [q] or None) of weights or equations of coefficients.

    Equations, strings, have a right-hand side, and no others.
    """
    labels, names = model.labels, model.labels.names
    parts = [name for own in model.models for name in own.names]
    places = [*range(labels.n_fixed), *map(names.index, parts)]
    L, values = _by_names([names[i] for i in places], L)
    return L @ labels.matrix[places], values


def _by_names(names, L):
    if not names:
        raise ValueError("L: this model has no coefficients to test.")
    rows = list(L) if isinstance(L, list | tuple) else [L]
    if rows and all(isinstance(row, str) for row in rows):
        return _equations(names, rows)
    if rows and all(isinstance(row, dict | pd.Series) for row in rows):
        used = list(dict.fromkeys(name for row in rows for name in dict(row)))
        L = pd.DataFrame([[row.get(name, 0.0) for name in used] for row in rows], columns=used)
    if np.size(L) == 0:
        raise ValueError("L is empty: give an equation, or weights of coefficients.")
    if not isinstance(L, pd.DataFrame):
        L = np.atleast_2d(_numbers(L, "L"))
        if L.ndim > 2 or L.shape[1] != len(names):
            raise ValueError(
                f"L has the shape {L.shape}, and a column for each of the {len(names)} "
                f"coefficients is asked for: {', '.join(names)}."
            )
        return _finite(L), None
    if unknown := [column for column in L.columns if column not in names]:
        raise ValueError(
            f"L: {unknown[0]!r} is no coefficient of this model, which has {', '.join(names)}."
        )
    if not L.columns.is_unique:
        raise ValueError(f"L: {L.columns[L.columns.duplicated()][0]!r} has weights twice.")
    return _finite(_numbers(L.reindex(columns=names, fill_value=0.0), "L")), None


def _numbers(values, name):
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {values!r} is not numeric: give numbers.") from error


def right_sides(rhs, n):
    """rhs, one number or [n], as numbers."""
    values = _numbers(0.0 if rhs is None else rhs, "rhs")
    if values.shape not in ((), (n,)):
        raise ValueError(
            f"rhs has the shape {values.shape}: give one number, or one for each of the {n} "
            "combinations."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"rhs={rhs!r} is not finite: give numbers.")
    return values


def check_consistent(L, rhs):
    """ValueError for combinations L [q, .] that follow from each other, of values that do not."""
    rhs, size = np.broadcast_to(rhs, len(L)), np.abs(L).max(axis=1)
    size = np.where(size > 0, size, 1.0)
    dependent = null_space((L / size[:, None]).T).T / size
    off = np.abs(dependent @ rhs) > ROUNDING * (np.abs(dependent) @ np.abs(rhs))
    if off.any():
        rows = np.flatnonzero(np.abs(dependent[np.argmax(off)] * size) > ROUNDING)
        raise ValueError(
            f"L: the equations {', '.join(map(str, rows))} contradict each other, so that no "
            "coefficients fulfil them: leave one out."
        )


def _finite(L):
    if not np.isfinite(L).all():
        raise ValueError("L has values that are not finite: give a weight, or 0.")
    return L


def _equations(names, texts):
    try:
        from formulaic.errors import FormulaicError
        from formulaic.utils.constraints import LinearConstraints
    except ImportError as error:
        raise ImportError(
            "L: equations need formulaic: pip install 'sklmm[formula]', or give weights by name."
        ) from error
    reasons = (FormulaicError, LookupError, RuntimeError, SyntaxError, TypeError, ValueError)
    # Names of interactions and classes are no words of the grammar unless they are in backquotes;
    # what is a number stays one.
    longest = sorted((name for name in names if not _is_number(name)), key=len, reverse=True)
    known = re.compile(rf"(?<!{_WORD})({'|'.join(map(re.escape, longest))})(?!{_WORD})")
    rows, values = [], []
    for text in texts:
        quoted = "".join(
            part if part.startswith("`") else known.sub(r"`\1`", part)
            for part in re.split(r"(`[^`]*`)", text)
        )
        try:
            found = LinearConstraints.from_spec(quoted, list(names))
            if not len(found.constraint_matrix) or not found.constraint_matrix.any(axis=1).all():
                raise ValueError("no coefficient")
        except reasons as error:
            example = f"`{names[-1]}`" if _is_number(names[-1]) else names[-1]
            raise ValueError(
                f"L: {text!r} is no linear equation of {', '.join(names)}, such as '{example} = 0'."
            ) from error
        rows.append(found.constraint_matrix)
        values.append(found.constraint_values)
    return np.concatenate(rows), np.concatenate(values)


def _is_number(name):
    return re.fullmatch(r"[\d.]+", name) is not None


def term_tests(model, result, kind, robust=None):
    """`JointTest` of each term of the mean by name, of type `kind`, 2 or 3.

    By the model's covariance, or by a `robust.Robust` one.
    """
    cov = result.coef_cov
    if robust is not None and kind == 2:
        cov, _ = robust.covariance()
    found = term_hypotheses(model, result, kind, cov)
    return {name: joint_test(model, result, L, robust=robust) for name, L in found}


def term_hypotheses(model, result, kind, cov):
    """(name, L [., n_columns]) of each term: what of its hypothesis the rows of the fit determine.

    Of type 2 by the covariance of the coefficients. Of several predictors a row, classes', L asks
    the same of all.
    """
    spec, n = model.spec, len(result.coef)
    p, none = len(spec.coef_names), untold(model, result)[:n]
    d = model.n_means
    if spec.formula is not None and kind == 2:
        found = type_two(spec.formula.formula_terms, cov[: d * p, : d * p], none[: d * p], d)
        return [(name, completed(model, result, L)) for name, L in found]
    if spec.formula is None:
        rows = np.eye(p)[int(spec.fit_intercept) :]
        found = [(name, row[None]) for name, row in zip(spec.fixed_names, rows, strict=True)]
    else:
        found = type_three(spec.formula.formula_terms, spec.formula.codes)
    wide = [(name, np.kron(np.eye(d), L)) for name, L in found]
    wide = [(name, np.pad(L, [(0, 0), (0, n - d * p)])) for name, L in wide]
    return [(name, determined_part(L, none)) for name, L in wide]


def test_table(tests, normal):
    """Table of `JointTest`s by name: F, df, ddf and p, or chi2, df and p of `normal` ones."""
    columns = {"statistic": "chi2" if normal else "F", "df": "df", "ddf": "ddf", "p": "p"}
    if normal:
        del columns["ddf"]
    rows = [[getattr(test, name) for name in columns] for test in tests.values()]
    return Table(rows, index=list(tests), columns=list(columns.values()))
