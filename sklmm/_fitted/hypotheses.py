"""Hypotheses about the coefficients of a fitted model: as they are written, and of its terms."""

import re

import numpy as np
import pandas as pd

from sklmm._fitted.contrasts import completed, determined_part, joint_test, untold
from sklmm._tables import Table
from sklmm.design.hypotheses import FormulaTerm, type_three, type_two

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
    if not isinstance(L, str) and not len(L):
        raise ValueError("L is empty: give an equation, or weights of coefficients.")
    if isinstance(L, str) or (isinstance(L, list | tuple) and all(isinstance(e, str) for e in L)):
        return _equations(names, [L] if isinstance(L, str) else list(L))
    if isinstance(L, dict):
        L = pd.Series(L, dtype=float)
    if isinstance(L, pd.Series):
        L = L.to_frame().T
    if not isinstance(L, pd.DataFrame):
        L = np.atleast_2d(np.asarray(L, dtype=float))
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
    return _finite(L.reindex(columns=names, fill_value=0.0).to_numpy(float)), None


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
    # Names of interactions and classes are no words of the grammar unless they are in backquotes.
    longest = sorted(names, key=len, reverse=True)
    known = re.compile(rf"(?<!{_WORD})({'|'.join(map(re.escape, longest))})(?!{_WORD})")
    rows, values = [], []
    for text in texts:
        quoted = "".join(
            part if part.startswith("`") else known.sub(r"`\1`", part)
            for part in re.split(r"(`[^`]*`)", text)
        )
        try:
            found = LinearConstraints.from_spec(quoted, list(names))
        except reasons as error:
            raise ValueError(
                f"L: {text!r} is no linear equation of {', '.join(names)}, such as "
                f"'{names[-1]} = 0'."
            ) from error
        rows.append(found.constraint_matrix)
        values.append(found.constraint_values)
    return np.concatenate(rows), np.concatenate(values)


def term_tests(model, result, kind):
    """`JointTest` of each term of the mean by name, of type `kind`, 2 or 3."""
    return {name: joint_test(model, result, L) for name, L in term_hypotheses(model, result, kind)}


def term_hypotheses(model, result, kind):
    """(name, L [., n_columns]) of each term: what of its hypothesis the rows of the fit determine.

    Of several predictors a row, classes', L asks the same of all.
    """
    spec, n = model.spec, len(result.coef)
    p, none = len(spec.coef_names), untold(model, result)[:n]
    d = model.n_predictors if model.family.classes == "unordered" else 1
    if spec.formula is not None and kind == 2:
        terms = [FormulaTerm(*own) for own in spec.formula.terms]
        found = type_two(terms, result.coef_cov[: d * p, : d * p], none[: d * p], d)
        return [(name, completed(model, result, L)) for name, L in found]
    if spec.formula is None:
        rows = np.eye(p)[int(spec.fit_intercept) :]
        found = [(name, row[None]) for name, row in zip(spec.fixed_names, rows, strict=True)]
    else:
        terms = [FormulaTerm(*own) for own in spec.formula.terms]
        found = type_three(terms, spec.formula.codes)
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
