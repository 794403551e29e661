"""The text report."""

import numpy as np


def summary_text(model, spec):
    """Report of a fitted estimator in the manner of lme4's `summary`, as one string."""
    result = model.result_
    method = "REML" if result.reml else "maximum likelihood"
    family = model._family
    kind = "Linear mixed model" if family.name == "gaussian" else "Generalized linear mixed model"
    fixed = " + ".join(
        [
            "1" if spec.fit_intercept else "0",
            *spec.coef_names[int(spec.fit_intercept) :],
            *([f"({len(spec.sparse)} sparse columns)"] if spec.sparse else []),
        ]
    )
    formula = " + ".join([fixed, *(str(t.effect) for t in spec.terms)])
    variances = model.variance_components_.drop(columns="variance").to_string(
        index=False, na_rep="", float_format=lambda v: f"{v:.5g}"
    )
    lines = [
        f"{kind} fit by {method}",
        *_family_lines(model, family),
        f"y ~ {formula}",
        f"{result.status.value} ({model.n_iter_} iterations)",
        "",
        *(["Random effects:", variances] if len(model.variance_components_) else []),
        _sizes(model, spec),
        "",
        "Fixed effects:",
        _fixed_effects(model, spec).to_string(float_format=lambda v: f"{v:.5g}"),
    ]
    if np.isfinite(model.loglik_):
        criterion = "REML criterion" if result.reml else "deviance"
        lines += [
            "",
            f"{criterion} {-2 * model.loglik_:.4f}  AIC {model.aic_:.2f}  BIC {model.bic_:.2f}",
        ]
    return "\n".join(lines)


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
