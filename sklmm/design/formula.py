"""Formulas: formulaic's for the fixed part, lme4's terms in parentheses for the random one.

formulaic builds the columns, remembers levels, knots and centres in its ModelSpec, and applies them
again at predict.
"""

import re
import warnings

import numpy as np
import pandas as pd

from sklmm.design.columns import raise_not_finite

#: Missing cells are told by column here; no variables but those of the table.
_OPTIONS = {"na_action": "ignore", "context": {}}
_RANDOM = re.compile(r"\+?\s*\([^()]*\|[^()]*\)")


def split_formula(formula):
    """Split ``"y ~ x + (1 | g)"`` into the fixed formula and the random-effect terms.

    Parameters
    ----------
    formula : str

    Returns
    -------
    (str, list of str)
        Such as ``("y ~ x", ["(1 | g)"])``.

    Raises
    ------
    ValueError
        For a formula without a response, or with a bar outside of a term.

    Examples
    --------
    >>> from sklmm.design.formula import split_formula
    >>> split_formula("y ~ x * z + (1 + x | g) + (1 | h)")
    ('y ~ x * z', ['(1 + x | g)', '(1 | h)'])
    >>> split_formula("y ~ (1 | g)")
    ('y ~ 1', ['(1 | g)'])
    """
    response, rhs = split_response(formula)
    if response is None:
        raise ValueError(
            f"formula={formula!r} has no response: write 'y ~ x + (1 | g)', y a column."
        )
    terms = [term.strip("+ \n\t") for term in _RANDOM.findall(rhs)]
    fixed = _RANDOM.sub(" ", rhs).strip().removeprefix("+").strip() or "1"
    if "|" in fixed:
        raise ValueError(
            f"formula={formula!r}: {fixed!r} has a bar outside of a random-effect term such as "
            "'(1 + x | g)'; a term's coefficients are columns, no functions of them."
        )
    return f"{response} ~ {' '.join(fixed.split())}", terms


def split_response(formula):
    """(response's column or None, right-hand side) of a formula."""
    left, tilde, right = formula.partition("~")
    if not tilde:
        return None, left.strip()
    return left.strip().strip("`") or None, right.strip()


def learn_formula(formula, table, fit_intercept):
    """(X [n_rows, n_columns], formulaic's ModelSpec) of a right-hand side on a training table."""
    Formula, DefaultFormulaParser = _formulaic()
    if not isinstance(table, pd.DataFrame):
        raise ValueError(
            f"fixed_effects={formula!r}: a formula needs columns with names: give X as a DataFrame."
        )
    rhs, name = split_response(formula)[1], f"fixed_effects={formula!r}"
    parser = DefaultFormulaParser(include_intercept=fit_intercept)
    parsed = _evaluated(name, lambda: Formula(rhs, _parser=parser))
    if re.search(r"(?<![\w.`])offset\(", rhs):
        raise ValueError(
            f"{name}: a formula has no offset(): leave it out, and name its column in the "
            "parameter offset."
        )
    if "|" in rhs or not hasattr(parsed, "required_variables"):
        raise ValueError(f"{name}: give one right-hand side, without '|'.")
    table = _plain(table, parsed.required_variables)
    _check_missing(parsed.required_variables, table)
    made = _evaluated(name, lambda: parsed.get_model_matrix(table, output="numpy", **_OPTIONS))
    return _finite(made, made.model_spec, name), made.model_spec


def apply_formula(spec, table):
    """The columns of a ModelSpec on a new table."""
    name, table = f"fixed_effects={str(spec.formula)!r}", _plain(table, spec.required_variables)
    _check_missing(spec.required_variables, table)
    made = _evaluated(
        name,
        lambda: spec.get_model_matrix(table, **_OPTIONS),
        on_unseen=lambda: _check_levels(spec, table),
    )
    return _finite(made, made.model_spec, name)


def formula_state(spec):
    """A ModelSpec as plain data: its terms, and what its transforms and factors have learnt.

    formulaic keeps the contrasts for introspection alone, and finds the structure again.
    """
    if spec is None:
        return None
    terms = [[(f.expr, f.eval_method.value) for f in term.factors] for term in spec.formula]
    learnt = {
        factor: (kind.value, _without_contrasts(state))
        for factor, (kind, state) in spec.encoder_state.items()
    }
    return {"terms": terms, "transforms": spec.transform_state, "factors": learnt}


def restored_formula(state):
    """The ModelSpec of a `formula_state`."""
    if state is None:
        return None
    Formula, _ = _formulaic()
    from formulaic import ModelSpec
    from formulaic.parser.types import Factor, Term

    terms = [
        Term([Factor(expr, eval_method=method) for expr, method in term]) for term in state["terms"]
    ]
    learnt = {
        factor: (Factor.Kind(kind), known) for factor, (kind, known) in state["factors"].items()
    }
    return ModelSpec(
        Formula(terms, _ordering="none"),
        materializer="pandas",
        output="numpy",
        transform_state=state["transforms"],
        encoder_state=learnt,
    )


def _without_contrasts(state):
    if type(state) is not dict:
        return state
    return {key: _without_contrasts(part) for key, part in state.items() if key != "contrasts"}


def _formulaic():
    try:
        from formulaic import Formula
        from formulaic.parser import DefaultFormulaParser
    except ImportError as error:
        raise ImportError(
            "fixed_effects: formulas need formulaic: pip install 'sklmm[formula]', or give a list "
            "of columns."
        ) from error
    return Formula, DefaultFormulaParser


def _evaluated(name, build, on_unseen=lambda: None):
    from formulaic.errors import DataMismatchWarning, FormulaicError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # formulaic would code a level that it has not seen as the reference level.
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            # What is infinite then is told by column, below.
            with np.errstate(all="ignore"):
                return build()
        except DataMismatchWarning as error:
            on_unseen()
            unseen = re.search(r"\{.*\}", str(error))
            raise ValueError(
                f"{name}: a categorical factor of X has the level(s) {unseen[0] if unseen else ''}"
                ", not seen when the model was fitted: they have no coefficient. Replace them, or "
                "make the column a grouping factor in random_effects."
            ) from None
        except (FormulaicError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            # formulaic marks places with escape codes, on further lines.
            reason = str(error).split("\n")[0]
            raise ValueError(f"{name}: {reason}") from error


def _plain(table, variables):
    """The table with pandas' nullable strings as objects: formulaic takes them for numbers."""
    strings = [c for c in table if c in variables and isinstance(table[c].dtype, pd.StringDtype)]
    return table.astype(dict.fromkeys(strings, object)) if strings else table


def _check_missing(variables, table):
    missing = [c for c in table if c in variables and table[c].isna().any()]
    if missing:
        raise_not_finite(missing, "fixed-effects", "NaN")


def _check_levels(spec, table):
    """Name the column of an unseen level, where a factor is a column."""
    for factor, (_, state) in spec.encoder_state.items():
        column = re.fullmatch(r"(?:C\()?`?([^`(),]+)`?\)?", factor)
        if column is None or column[1] not in table or "categories" not in state:
            continue
        values = table[column[1]]
        unseen = values[~values.isin(state["categories"])].tolist()
        if unseen:
            raise ValueError(
                f"The fixed-effects column {column[1]!r} holds {unseen[0]!r}, a level not "
                "seen when the model was fitted: it has no coefficient. Replace it, or make the "
                "column a grouping factor in random_effects."
            )


def _finite(made, spec, name):
    X = np.asarray(made, dtype=np.float64)
    if not np.isfinite(X).all():
        bad = np.array(spec.column_names)[~np.isfinite(X).all(axis=0)]
        raise ValueError(
            f"{name}: {', '.join(map(repr, map(str, bad)))} is not finite: change the formula, or "
            "the rows where it is not defined."
        )
    return X
