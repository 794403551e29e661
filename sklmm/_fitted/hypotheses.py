"""Hypotheses about the coefficients of a fitted model: as they are written, and of its terms."""

import re

import numpy as np
import pandas as pd

from sklmm._fitted.contrasts import determined_part, joint_test, untold
from sklmm._tables import Table
from sklmm.design.hypotheses import FormulaTerm, type_three, type_two

#: Characters that a name goes on with.
_WORD = r"[\w.\[\]`]"


def combinations(names, L):
    """(L [q, n], rhs [q] or None) of weights or equations of coefficients by name.

    Equations, strings, have a right-hand side, and no others.
    """
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
    none = untold(model, result)[: len(result.coef)]
    return {
        name: joint_test(model, result, determined_part(L, none))
        for name, L in of_terms(model, result, kind)
    }


def of_terms(model, result, kind):
    """(name, L [., n_columns]) of each term of the mean, of type `kind`, 2 or 3.

    Of several predictors a row, classes', L asks the same of all.
    """
    spec, n = model.spec, len(result.coef)
    p = len(spec.coef_names)
    d = n // p if model.family.classes == "unordered" else 1
    if spec.formula is None:
        first = int(spec.fit_intercept)
        rows = np.eye(d * p).reshape(d, p, d * p)
        found = [(name, rows[:, first + i]) for i, name in enumerate(spec.fixed_names)]
    else:
        terms = [FormulaTerm(*own) for own in spec.formula.terms]
        if kind == 3:
            found = type_three(terms, spec.formula.codes)
            found = [(name, np.kron(np.eye(d), L)) for name, L in found]
        else:
            found = type_two(terms, result.coef_cov[: d * p, : d * p], d)
    return [(name, np.pad(L, [(0, 0), (0, n - d * p)])) for name, L in found]


def test_table(tests, normal):
    """Table of `JointTest`s by name: F, df, ddf and p, or chi2, df and p of `normal` ones."""
    columns = {"statistic": "chi2" if normal else "F", "df": "df", "ddf": "ddf", "p": "p"}
    if normal:
        del columns["ddf"]
    rows = [[getattr(test, name) for name in columns] for test in tests.values()]
    return Table(rows, index=list(tests), columns=list(columns.values()))
