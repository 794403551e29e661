"""What is timed: a table, a model of it, a task, and the systems that can do it."""

from dataclasses import dataclass

SLOPES = "(1 + x0 | %s)"
MIXED = ("sklmm", "gpboost", "lme4", "glmmtmb")


@dataclass(frozen=True)
class Workload:
    """A table by its name in `tables.py`, and what the systems do with it.

    `term` is that of every grouping column %s, or one for each. The column number `factor` is a
    category. The tasks:

    - fit: the first and the second fit of a process
    - predict, interval, residuals, profile, check, marginal_means: of a fitted model, twice
    - influence, robust: of its first term's groups, and by clusters of them, likewise
    - predict_new: predictions of rows whose levels are all new
    - cross_validate: five folds, twice
    - loglik: a first fit, and second the log-likelihood that it leaves to be asked for
    - fit_parquet: a fit from files, reading included

    Without `again` nothing is done a second time. `e_step`, `dof` and the `dispersion`, a formula
    of the residual SD, are sklmm's alone. One of `zero_inflation` has all columns or none, as
    GPBoost's.
    """

    name: str
    table: str
    systems: tuple = ("sklmm", "gpboost")
    family: str = "gaussian"
    task: str = "fit"
    term: str | tuple = "(1 | %s)"
    factor: int | None = None
    e_step: str = "auto"
    dispersion: str | None = None
    zero_inflation: str | None = None
    dof: str | None = None
    again: bool = True
    repeats: int = 5


def large(*args, **kwargs):
    """A workload of minutes or gigabytes: fitted once a process, and three times."""
    return Workload(*args, again=False, repeats=3, **kwargs)


WORKLOADS = {
    w.name: w
    for w in [
        Workload("sleepstudy", "sleepstudy", ("sklmm", "lme4", "statsmodels", "glmm"), term=SLOPES),
        Workload(
            "sleepstudy-profile", "sleepstudy", ("sklmm", "lme4"), task="profile", term=SLOPES
        ),
        Workload("insteval", "insteval", (*MIXED, "tutorial")),
        Workload("insteval-dispersion", "insteval", ("sklmm",), dispersion="~ x0"),
        Workload("insteval-satterthwaite", "insteval", ("sklmm",), dof="satterthwaite"),
        Workload("insteval-kenward-roger", "insteval", ("sklmm",), dof="kenward-roger"),
        Workload("insteval-influence", "insteval", ("sklmm",), task="influence"),
        Workload("insteval-cv", "insteval", task="cross_validate"),
        Workload("insteval-logistic", "insteval-binary", family="bernoulli"),
        Workload(
            "insteval-logistic-laplace", "insteval-binary", family="bernoulli", e_step="laplace"
        ),
        Workload(
            "insteval-logistic-cv",
            "insteval-binary",
            family="bernoulli",
            task="cross_validate",
            again=False,
        ),
        Workload("insteval-ordinal", "insteval", family="ordinal"),
        Workload("insteval-poisson", "insteval-counts", ("sklmm",), "poisson", repeats=3),
        Workload(
            "insteval-zip",
            "insteval-counts",
            family="poisson",
            zero_inflation="~ x0",
            repeats=3,
        ),
        Workload("toenail", "toenail", ("sklmm", "glmm", "lme4"), "bernoulli"),
        Workload("contraception", "contraception", ("sklmm", "lme4"), "bernoulli"),
        Workload("verbagg", "verbagg", ("sklmm", "lme4"), "bernoulli"),
        Workload("grouseticks", "grouseticks", ("sklmm", "lme4"), "poisson"),
        Workload("doctor-visits", "doctor-visits", ("sklmm", "glmmtmb"), "negative_binomial"),
        Workload("probit-2.5e5", "probit", family="probit", e_step="laplace"),
        large("flights", "flights", family="bernoulli"),
        large("logistic-1e6", "crossed-1e6-binary", family="bernoulli"),
        large("poisson-1e6", "crossed-1e6-counts", family="poisson"),
        large("zeros-poisson-1e6", "crossed-1e6-zeros", family="poisson"),
        large(
            "zip-1e6",
            "crossed-1e6-zeros",
            family="poisson",
            zero_inflation="~ x0",
        ),
        large(
            "zip-const-1e6",
            "crossed-1e6-zeros",
            family="poisson",
            zero_inflation="~ 1",
        ),
        Workload(
            "loglik-1e6", "crossed-1e6-binary", ("sklmm",), "bernoulli", task="loglik", repeats=3
        ),
        Workload("crossed-1e5", "crossed-1e5"),
        Workload("crossed-1e6", "crossed-1e6"),
        Workload("dispersion-1e6", "crossed-1e6-scaled", ("sklmm",), dispersion="~ x1"),
        Workload("dispersion-1e6-numeric", "crossed-1e6-scaled", ("sklmm",), dispersion="~ x0"),
        Workload("dispersion-1e6-plain", "crossed-1e6-scaled", ("sklmm",)),
        large("crossed-1e7", "crossed-1e7"),
        large("crossed-3.2e7", "crossed-3.2e7", systems=("sklmm",)),
        large("parquet-1e7", "crossed-1e7.parquet", ("sklmm", "in-memory"), task="fit_parquet"),
        large("parquet-1e8", "crossed-1e8.parquet", ("sklmm",), task="fit_parquet"),
        Workload("nested-1e6", "nested"),
        Workload("slopes-2e5", "slopes", ("sklmm", "lme4"), term=SLOPES),
        Workload("slopes-kenward-roger", "slopes", ("sklmm",), term=SLOPES, dof="kenward-roger"),
        Workload("slopes-robust", "slopes", ("sklmm",), term=SLOPES, task="robust"),
        Workload("slopes-apart-2e5", "slopes", ("sklmm", "lme4"), term="(1 + x0 || %s)"),
        Workload("panel-slopes", "panel-slopes", ("sklmm",), term="(1 + x0 + x1 | %s)"),
        Workload("panel-ar1", "panel-ar1", ("sklmm",), term="ar1(0 + x1 | %s)"),
        Workload("panel-ar1-dropout", "panel-dropout", ("sklmm",), term="ar1(0 + x1 | %s)"),
        Workload("panel-ar1-random", "panel-random", ("sklmm",), term="ar1(0 + x1 | %s)"),
        Workload(
            "treatment-1e6",
            "treatment",
            ("sklmm",),
            term=("(1 + x1 | %s)", "(1 | %s)"),
            factor=1,
            repeats=3,
        ),
        Workload(
            "treatment-by-hand-1e6",
            "treatment-by-hand",
            ("sklmm",),
            term=("(1 + x1 + x2 | %s)", "(1 | %s)"),
            repeats=3,
        ),
        Workload("animals-1e5", "animals-1e5", ("sklmm",), repeats=3),
        large("animals-1e6", "animals-1e6", ("sklmm",)),
        Workload("predict-1e6", "crossed-1e6", ("sklmm",), task="predict"),
        Workload(
            "proba-1e6", "crossed-1e6-binary", ("sklmm",), "bernoulli", task="predict", repeats=3
        ),
        Workload("means-1e6", "crossed-1e6", ("sklmm",), task="marginal_means", repeats=3),
        Workload(
            "means-binary-1e6",
            "crossed-1e6-binary",
            ("sklmm",),
            "bernoulli",
            task="marginal_means",
            repeats=3,
        ),
        Workload("interval-1e6", "crossed-1e6", ("sklmm",), task="interval", repeats=3),
        Workload("residuals-1e6", "crossed-1e6", ("sklmm",), task="residuals", repeats=3),
        Workload(
            "residuals-binary-1e6",
            "crossed-1e6-binary",
            ("sklmm",),
            "bernoulli",
            task="residuals",
            e_step="laplace",
            repeats=3,
        ),
        Workload("check-1e6", "crossed-1e6", ("sklmm",), task="check", repeats=3),
        Workload(
            "check-binary-1e6",
            "crossed-1e6-binary",
            ("sklmm",),
            "bernoulli",
            task="check",
            repeats=3,
        ),
        Workload(
            "predict-known-1e6",
            "crossed-1e6-binary",
            ("sklmm",),
            "bernoulli",
            task="predict",
            e_step="laplace",
            repeats=3,
        ),
        Workload(
            "predict-new-1e6",
            "crossed-1e6-binary",
            ("sklmm",),
            "bernoulli",
            task="predict_new",
            e_step="laplace",
            repeats=3,
        ),
    ]
}
