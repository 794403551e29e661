"""The report of a fit: text, and HTML in a notebook, LaTeX or Markdown when asked for."""

import re
from contextlib import contextmanager

import numpy as np

from sklmm._fitted.tables import without_likelihood
from sklmm.design.formula import split_response
from sklmm.inspection import markup
from sklmm.result import count


class Summary(str):
    """The report as text, in other markups by its methods; a notebook shows it as HTML."""

    __slots__ = ("report",)

    @classmethod
    def of(cls, model):
        """Report of a fitted estimator in the manner of lme4's `summary`."""
        spec = model._fitted.spec
        head, sizes, foot = _head(model, spec), _sizes(model, spec), _foot(model)
        variances = model.variance_components_.drop(columns="variance")
        tables = [("Fixed effects", _fixed_effects(model, spec)), *_parts(model)]
        random = [("Random effects", variances)] if len(variances) else []
        text = ["\n".join(head)]
        text.append("\n".join([*(_titled(*own) for own in random), sizes]))
        text += [_titled(*own) for own in tables]
        out = cls("\n\n".join([*text, *(["\n".join(foot)] if foot else [])]))
        out.report = [("", head), *random, ("", [sizes]), *tables, *([("", foot)] if foot else [])]
        return out

    def _repr_html_(self):
        return markup.html_of(self.report)

    def to_latex(self):
        r"""The report as LaTeX, for documents with ``\usepackage{booktabs, siunitx}``.

        Returns
        -------
        str
            Tables whose numbers siunitx aligns by their decimal points, and names as they are.

        Raises
        ------
        ImportError
            Without jinja2, by which pandas writes LaTeX.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> print(model.summary().to_latex())  # doctest: +ELLIPSIS
        % \usepackage{booktabs, siunitx}
        ...
        Days & 10.467 & 1.5458 & 6.7715 & 1.27e-11 & 7.4376 & 13.497 \\
        ...
        """
        with _needed("jinja2", "to_latex"):
            return markup.latex_of(self.report)

    def to_markdown(self):
        r"""The report as Markdown.

        Returns
        -------
        str
            Lines and tables, as GitHub and Quarto show them.

        Raises
        ------
        ImportError
            Without tabulate, by which pandas writes Markdown.

        Examples
        --------
        >>> from sklmm import MixedEffectsRegressor
        >>> from sklmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True, as_frame=True)
        >>> model = MixedEffectsRegressor(["(1 + Days | Subject)"]).fit(X, y)
        >>> print(model.summary().to_markdown().splitlines()[-6])
        |           |   estimate |   std\_error |       z |         p |   ci\_lower |   ci\_upper |
        """
        with _needed("tabulate", "to_markdown"):
            return markup.markdown_of(self.report)


@contextmanager
def _needed(module, method):
    """Say how to install what a method needs."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{method} needs {module}: pip install 'sklmm[reports]'.") from error


def _titled(title, table):
    return f"{title}:\n{markup.text_of(table)}"


def _head(model, spec):
    result, family, approximation = model.result_, model._fitted.family, model._fitted.approximation
    method = "REML" if result.reml else "maximum likelihood"
    if approximation:
        method += f" ({approximation})"
    method += ", with priors" if result.log_prior is not None else ""
    kind = f"linear {'mixed ' if spec.terms else ''}model"
    linear = family.closed_form or family.quadratic
    kind = kind.capitalize() if linear else f"Generalized {kind}"
    return [
        f"{kind} fit by {method}",
        *_family_lines(model, family),
        _formula(model, spec),
        f"{result.status.value} ({model.n_iter_} iteration{'s' if model.n_iter_ > 1 else ''})",
        *_rule_lines(result),
        *_chain_lines(model),
    ]


def _rule_lines(result):
    """By which rule t tests have their degrees of freedom."""
    rules = {"satterthwaite": "Satterthwaite's", "kenward-roger": "Kenward and Roger's"}
    rule = rules.get(result.dof_rule)
    return [f"t tests with {rule} degrees of freedom"] if rule else []


def _formula(model, spec):
    """The model as a formula, whose fixed part is in the user's own words where there are any."""
    intercept = "1" if spec.fit_intercept else "0"
    if isinstance(model.fixed_effects, str):
        response, fixed = split_response(model.fixed_effects)
        words = [word.strip() for word in re.split(r"\+|(?=-)", fixed)]
        told = any(re.fullmatch(r"-?\s*[01]", word) for word in words)
        fixed = [fixed] if told else [intercept, fixed]
    else:
        response, fixed = None, [intercept, *spec.coef_names[int(spec.fit_intercept) :]]
    fixed += [f"({len(spec.sparse)} sparse columns)"] if spec.sparse else []
    offset = [] if spec.offset is None else [f"offset({spec.offset})"]
    right = [*fixed, *offset, *(str(term.effect) for term in spec.terms)]
    return f"{response or model._fitted.response_name} ~ {' + '.join(right)}"


def _chain_lines(model):
    """Acceptance and length of the Markov chains, and how to see more of them."""
    chains = model.result_.chains
    if chains is None:
        return []
    n_chains, n_draws, _ = chains.shape
    rate = model.history_["acceptance_rate"].tail(n_draws).mean()
    std = model._fitted.estimates(model.result_)[1]
    error = model.mc_error_ / std.reindex(model.mc_error_.index)
    known = ""
    if error.notna().any():
        known = f", Monte Carlo error at most {error.max():.2g} standard errors"
    return [
        f"{n_chains} chains of {n_draws} draws, acceptance rate {rate:.2f}{known}; "
        "chain_diagnostics() has ESS and R-hat"
    ]


def _foot(model):
    if model.result_.likelihood.lost:
        return ["Log-likelihood, AIC and BIC: not known; read loglik_ before a model is saved"]
    if np.isnan(model.loglik_):
        return [f"No log-likelihood, AIC and BIC: {without_likelihood(model.result_)}"]
    if not np.isfinite(model.loglik_):
        return []
    criterion = "REML criterion" if model.result_.reml else "deviance"
    error = f" (Monte Carlo error {2 * model.loglik_error_:.2g})" if model.loglik_error_ else ""
    criteria = f"AIC {model.aic_:.2f}  BIC {model.bic_:.2f}"
    if model.result_.log_prior is not None:
        # The criteria are of maxima, which these estimates are not.
        criteria = f"log posterior {model.log_posterior_:.4f}"
    return [f"{criterion} {-2 * model.loglik_:.4f}{error}  {criteria}"]


def _fixed_effects(model, spec):
    """The table, without the columns that are kept sparse: there are too many to print."""
    if not spec.sparse:
        return model.fixed_effects_
    return model.fixed_effects_.iloc[np.sort(spec.order.argsort()[: len(spec.coef_names)])]


def _parts(model):
    """Titles and tables of the model's other parts."""
    titles = {
        "zero_inflation_effects_": "Zero inflation (logit of the probability of a zero)",
        "dispersion_effects_": "Dispersion",
        "nominal_effects_": "Nominal effects (on the cutpoints)",
    }
    if (zeros := getattr(model._fitted.family, "hurdle", None)) is not None and zeros:
        titles["zero_inflation_effects_"] = "Hurdle (logit of the probability of a zero)"
    if (name := model._fitted.family.dispersion_parameter) is not None:
        titles["dispersion_effects_"] = f"Dispersion (log {name})"
    found = [(title, getattr(model, name, None)) for name, title in titles.items()]
    return [(title, table) for title, table in found if table is not None]


def _family_lines(model, family):
    """Family, link and parameters of a generalized model."""
    if family.closed_form:
        return [] if family.mean_is_eta else [f"Family {family.name}"]
    link = f", {family.link} link" if hasattr(family, "link") else ""
    parameters = ", ".join(
        f"{name} {' '.join(f'{v:.5g}' for v in np.atleast_1d(value))}"
        for name, value in model.family_params_.items()
    )
    return [f"Family {family.name}{link}{': ' + parameters if parameters else ''}"]


def _sizes(model, spec):
    groups = "; ".join(f"{t.name}, {len(t.levels)}" for t in spec.terms) or "none"
    missing = model._fitted.n_missing
    out = f" ({missing} rows with missing values left out)" if missing else ""
    return f"Number of obs: {count(model.result_.n_obs)}{out}, groups: {groups}"
