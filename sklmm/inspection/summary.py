"""The report of a fit: text, and HTML in a notebook."""

from html import escape

import numpy as np

from sklmm.design import split_response

#: Below it a p value is not worth its digits, as in R.
LEAST_P = np.finfo(float).eps


class Summary(str):
    """The text; a notebook shows the same as HTML, by `_repr_html_`."""

    __slots__ = ("html",)

    @classmethod
    def of(cls, model, spec):
        """Report of a fitted estimator in the manner of lme4's `summary`."""
        head, sizes, foot = _head(model, spec), _sizes(model, spec), _foot(model)
        variances = model.variance_components_.drop(columns="variance")
        fixed = _fixed_effects(model, spec)
        options = {
            "na_rep": "",
            "float_format": lambda v: f"{v:.5g}",
            "formatters": {"p": _p_value},
        }
        random = ["Random effects:", variances.to_string(index=False, **options)]
        text = [*head, "", *(random if len(variances) else []), sizes, ""]
        text += ["Fixed effects:", fixed.to_string(**options), *(["", *foot] if foot else [])]
        out = cls("\n".join(text))
        random = ["<h4>Random effects</h4>", variances.to_html(index=False, **options)]
        parts = [_paragraph(head), *(random if len(variances) else []), _paragraph([sizes])]
        parts += ["<h4>Fixed effects</h4>", fixed.to_html(**options), _paragraph(foot)]
        out.html = f"<div>{''.join(parts)}</div>"
        return out

    def _repr_html_(self):
        return self.html


def _p_value(p):
    return f"<{LEAST_P:.2g}" if p < LEAST_P else f"{p:.3g}"


def _paragraph(lines):
    return f"<p>{'<br>'.join(map(escape, lines))}</p>"


def _head(model, spec):
    result, family = model.result_, model._family
    method = "REML" if result.reml else "maximum likelihood"
    kind = "Linear mixed model" if family.name == "gaussian" else "Generalized linear mixed model"
    fixed = " + ".join(
        [
            "1" if spec.fit_intercept else "0",
            *spec.coef_names[int(spec.fit_intercept) :],
            *([f"({len(spec.sparse)} sparse columns)"] if spec.sparse else []),
        ]
    )
    formula = " + ".join([fixed, *(str(t.effect) for t in spec.terms)])
    return [
        f"{kind} fit by {method}",
        *_family_lines(model, family),
        f"{_response(model)} ~ {formula}",
        f"{result.status.value} ({model.n_iter_} iterations)",
        *_chain_lines(model),
    ]


def _response(model):
    """The response's column where a formula names it."""
    formula = model.fixed_effects
    return (split_response(formula)[0] if isinstance(formula, str) else None) or "y"


def _chain_lines(model):
    """Acceptance and length of the Markov chains, and how to see more of them."""
    chains = model.result_.chains
    if chains is None:
        return []
    n_chains, n_draws, _ = chains.shape
    rate = model.history_["acceptance_rate"].tail(n_draws).mean()
    error = model.mc_error_ / model._estimates()[1].reindex(model.mc_error_.index)
    known = ""
    if error.notna().any():
        known = f", Monte Carlo error at most {error.max():.2g} standard errors"
    return [
        f"{n_chains} chains of {n_draws} draws, acceptance rate {rate:.2f}{known}; "
        "chain_diagnostics() has ESS and R-hat"
    ]


def _foot(model):
    if not np.isfinite(model.loglik_):
        return []
    criterion = "REML criterion" if model.result_.reml else "deviance"
    error = f" (Monte Carlo error {2 * model.loglik_error_:.2g})" if model.loglik_error_ else ""
    return [
        f"{criterion} {-2 * model.loglik_:.4f}{error}  AIC {model.aic_:.2f}  BIC {model.bic_:.2f}"
    ]


def _fixed_effects(model, spec):
    """The table, without the columns that are kept sparse: there are too many to print."""
    if not spec.sparse:
        return model.fixed_effects_
    return model.fixed_effects_.iloc[np.sort(spec.order.argsort()[: len(spec.coef_names)])]


def _family_lines(model, family):
    """Family, link and parameters of a generalized model."""
    if family.name == "gaussian":
        return []
    link = f", {family.link} link" if hasattr(family, "link") else ""
    parameters = ", ".join(
        f"{name} {np.array2string(np.asarray(value), precision=4)}"
        for name, value in model.family_params_.items()
    )
    return [f"Family {family.name}{link}{': ' + parameters if parameters else ''}"]


def _sizes(model, spec):
    groups = "; ".join(f"{t.name}, {len(t.levels)}" for t in spec.terms) or "none"
    return f"Number of obs: {model.result_.n_obs:g}, groups: {groups}"
