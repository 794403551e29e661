"""The models whose numbers are kept: packaged data and simulated tables, by the public API."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from scipy import sparse

from sklmm import (
    HMC,
    NUTS,
    Bernoulli,
    ConjugateGradient,
    CustomFamily,
    Gamma,
    Gaussian,
    Laplace,
    MixedEffectsClassifier,
    MixedEffectsEncoder,
    MixedEffectsRegressor,
    Ordinal,
    Poisson,
    RandomEffect,
    StudentT,
)
from sklmm.datasets import load_insteval, load_pastes, load_sleepstudy, make_crossed
from tests.published import DATA, MODELS, gaussian_fit, gaussian_tables
from tests.simulate import PARAMETERS, simulate

SLOPES = "(1 + Days | Subject)"
APART = "(1 + Days || Subject)"
#: By sampling: their numbers may change by Monte Carlo error.
SAMPLED = ("hmc", "nuts", "adam")
#: Monte Carlo EM without TensorFlow; "hmc" is by TensorFlow.
IN_NUMPY = HMC(backend="numpy")
CASES = {}


@dataclass
class Fitted:
    """A fitted model, rows to predict, and other numbers (value, unit) by name."""

    model: object
    X: object
    extra: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A model by name; `fit` gives a `Fitted`, in a few seconds where it is quick.

    `tolerance` is what its numbers may differ by, in their units: more than the usual where rows in
    another order already move them by more, as at the boundary of the parameters.
    """

    name: str
    fit: object
    quick: bool
    tolerance: float

    @property
    def sampled(self):
        """Whether it is fitted by Monte Carlo."""
        return any(word in self.name.split() for word in SAMPLED)


def add(name, fit, quick=True, tolerance=1e-8):
    """One case more."""
    CASES[name] = Case(name, fit, quick, tolerance)


def case(name, quick=True, tolerance=1e-8):
    """The same, of the function that is decorated."""
    return lambda fit: add(name, fit, quick, tolerance)


def fit(estimator, X, y, *terms, weights=None, **parameters):
    """A model of any of the two estimators."""
    model = estimator(list(terms), random_state=0, **parameters)
    return Fitted(model.fit(X, y, sample_weight=weights), X)


def sleepstudy():
    return load_sleepstudy(return_X_y=True, as_frame=True)


def of_sleepstudy(*terms, weights=None, **parameters):
    return fit(MixedEffectsRegressor, *sleepstudy(), *terms, weights=weights, **parameters)


def crossed(n_rows, *n_levels, random_state=0):
    """make_crossed's frame and response."""
    return make_crossed(n_rows, n_levels, random_state=random_state)[:2]


def published(name, method):
    model, tables = gaussian_fit(name, method, gaussian_tables()), gaussian_tables()
    return Fitted(model, tables[name.split("_")[0]][0])


def published_by_cg(name, method):
    random_effects, fixed_effects = MODELS[name]
    X, y = gaussian_tables()[name.split("_")[0]]
    parameters = {"fixed_effects": fixed_effects, "method": method, "e_step": "cg"}
    return fit(MixedEffectsRegressor, X, y, *random_effects, **parameters)


def generalized(name, **parameters):
    model, X, y, weights = DATA[name]()
    model.set_params(random_state=0, **parameters)
    return Fitted(model.fit(X, y, sample_weight=weights), X)


def simulated(name, family=None, **parameters):
    X, y, weights, _ = simulate(name, 0)
    classes = name in ("ordinal", "categorical")
    estimator = MixedEffectsClassifier if classes else MixedEffectsRegressor
    parameters = {"family": family or name, **parameters}
    terms = parameters.pop("terms", ["g"])
    X = X.assign(w=np.cos(np.arange(len(X))))
    return fit(estimator, X, y, *terms, weights=weights, **parameters)


for _name in MODELS:
    for _method in ("reml", "ml"):
        add(f"{_name} {_method}", partial(published, _name, _method))
        if _name != "dyestuff2_singular":
            add(f"{_name} {_method} cg", partial(published_by_cg, _name, _method))
for _name in DATA:
    _tolerance = 1e-7 if _name == "toenail" else 1e-8
    add(f"{_name} laplace", partial(generalized, _name, e_step="laplace"), tolerance=_tolerance)
    add(f"{_name} quadrature", partial(generalized, _name, e_step="quadrature"))
    add(f"{_name} hmc", partial(generalized, _name, e_step="hmc"), quick=False)
    add(f"{_name} hmc numpy", partial(generalized, _name, e_step=IN_NUMPY), quick=False)
for _name in PARAMETERS:
    if _name != "categorical":
        add(f"family {_name} laplace", partial(simulated, _name, e_step="laplace"))
    add(f"family {_name} hmc", partial(simulated, _name, e_step="hmc"), quick=False)
    add(f"family {_name} hmc numpy", partial(simulated, _name, e_step=IN_NUMPY), quick=False)
    add(f"family {_name} fixed part alone", partial(simulated, _name, terms=[]))

# Links, curvatures and parameters that are not the default.
_LINKS = {
    "gamma inverse": ("gamma", {"family": Gamma("inverse")}),
    "gamma identity": ("gamma", {"family": Gamma("identity")}),
    "poisson sqrt": ("poisson", {"family": Poisson("sqrt")}),
    "bernoulli probit": ("bernoulli", {"family": Bernoulli("probit")}),
    "bernoulli cloglog": ("bernoulli", {"family": Bernoulli("cloglog")}),
    "ordinal probit": ("ordinal", {"family": Ordinal("probit")}),
    "student_t of 4 degrees": ("student_t", {"family": StudentT(df=4.0)}),
    "gaussian of known sigma": ("gaussian", {"family": Gaussian(sigma=0.8)}),
    "poisson known sd": ("poisson", {"terms": [RandomEffect("g", sd=0.5)]}),
}
for _name, (_family, _parameters) in _LINKS.items():
    # Newton's method ends 1e-5 SDs from a mode at most, wherever it came from.
    _tolerance = 1e-6 if _name == "poisson known sd" else 1e-8
    _fit = partial(simulated, _family, e_step="laplace", **_parameters)
    add(f"{_name} laplace", _fit, tolerance=_tolerance)
for _name in ("gamma", "beta", "negative_binomial"):
    add(
        f"{_name} expected curvature laplace",
        partial(simulated, _name, e_step=Laplace(curvature="expected")),
    )


def with_slopes(family, bar="|", sd=0.4, **parameters):
    """Poisson, gamma or ordinal responses whose slopes vary between 40 groups."""
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"g": np.repeat(np.arange(40), 15), "x": rng.normal(size=600)})
    intercept, slope = (s * rng.normal(size=40)[X["g"]] for s in (0.5, sd))
    eta = 0.3 + intercept + (slope - 0.5) * X["x"]
    y = {
        "poisson": lambda: rng.poisson(np.exp(eta)),
        "gamma": lambda: rng.gamma(3.0, np.exp(eta) / 3.0),
        "ordinal": lambda: np.digitize(eta + 0.7 * rng.logistic(size=600), [-0.5, 0.5, 1.5]),
    }[family]()
    estimator = MixedEffectsClassifier if family == "ordinal" else MixedEffectsRegressor
    parameters = {"family": family, "e_step": "laplace", **parameters}
    return fit(estimator, X, y, f"(1 + x {bar} g)", **parameters)


for _name in ("poisson", "gamma", "ordinal"):
    add(f"{_name} slopes laplace", partial(with_slopes, _name))
    add(f"{_name} slopes apart laplace", partial(with_slopes, _name, "||"))
    _apart = partial(with_slopes, _name, "||")
    add(f"{_name} slopes apart hmc", partial(_apart, e_step="hmc"), quick=False)
    add(f"{_name} slopes apart hmc numpy", partial(_apart, e_step=IN_NUMPY), quick=False)
for _bar in ("|", "||"):
    add(
        f"poisson slopes that do not vary, {_bar} laplace",
        partial(with_slopes, "poisson", _bar, sd=0.0),
        tolerance=1e-4,
    )


@case("family of a function laplace")
def _():
    return simulated("poisson", CustomFamily(_poisson), e_step="laplace")


@case("family of a function hmc", quick=False)
def _():
    return simulated("gaussian", CustomFamily(_logistic, scale="positive"), e_step="hmc")


def _poisson(eta):
    import tensorflow_probability as tfp

    return tfp.distributions.Poisson(log_rate=eta)


def _logistic(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Logistic(eta, scale)


# Gaussian models with more than terms.
_REPEATS = 1.0 + np.arange(180) % 3
_GAUSSIAN = {
    "weights": ([SLOPES], {"weights": _REPEATS}),
    "weights of zero": ([SLOPES], {"weights": _REPEATS - 1}),
    "precisions": ([SLOPES], {"weights": _REPEATS / 2, "family": Gaussian(weights="precision")}),
    "offset": (["Subject"], {"offset": "Days"}),
    "formula": ([SLOPES], {"fixed_effects": "~ Days + np.log1p(Days)"}),
    "known sds": ([RandomEffect("Subject", slopes=["Days"], sd=20.0)], {}),
    "without intercept": ([SLOPES], {"fit_intercept": False}),
    "satterthwaite": ([SLOPES], {"dof": "satterthwaite"}),
    "satterthwaite apart": ([APART], {"dof": "satterthwaite"}),
    "residual sd by days": ([SLOPES], {"dispersion": "~ Days"}),
    "fixed part alone": ([], {}),
    "slope alone": (["(0 + Days | Subject)"], {}),
}
for _name, (_terms, _parameters) in _GAUSSIAN.items():
    add(f"sleepstudy {_name}", partial(of_sleepstudy, *_terms, **_parameters))
    if "alone" not in _name:
        add(f"sleepstudy {_name} cg", partial(of_sleepstudy, *_terms, e_step="cg", **_parameters))
add("sleepstudy laplace", partial(of_sleepstudy, SLOPES, e_step="laplace"))
add("sleepstudy hmc", partial(of_sleepstudy, SLOPES, e_step="hmc"), quick=False)
add("sleepstudy apart hmc", partial(of_sleepstudy, APART, e_step="hmc"), quick=False)
add("sleepstudy nuts", partial(of_sleepstudy, SLOPES, e_step=NUTS(max_tree_depth=4)), quick=False)
add(
    "sleepstudy adam",
    partial(of_sleepstudy, "Subject", e_step="hmc", m_step="adam", max_iter=500),
    quick=False,
    tolerance=1e-5,
)


@case("missing rows, a column twice")
def _():
    X, y = sleepstudy()
    X = X.assign(Hours=24.0 * X["Days"], Noise=np.cos(np.arange(len(X))))
    X.loc[X.index[[3, 50]], "Noise"] = np.nan
    return fit(MixedEffectsRegressor, X, y, "Subject", missing="drop")


@case("separated laplace", tolerance=0.1)
def _():
    X, _, _, _ = simulate("bernoulli", 0)
    return fit(MixedEffectsClassifier, X, X["x"] > 0, "g", e_step="laplace")


@case("perfect fit")
def _():
    X, _ = sleepstudy()
    return fit(MixedEffectsRegressor, X, 3.0 + 2 * X["Days"], "Subject")


@case("offset of counts laplace")
def _():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"nest": np.repeat(np.arange(60), 12), "x": rng.normal(size=720)})
    size = rng.integers(1, 8, 720)
    rate = size * np.exp(0.5 - 0.4 * X["x"] + 0.6 * rng.normal(size=60)[X["nest"]])
    X = X.assign(log_size=np.log(size))
    parameters = {"family": "poisson", "offset": "log_size", "e_step": "laplace"}
    return fit(MixedEffectsRegressor, X, rng.poisson(rate), "nest", **parameters)


@case("slopes of crossed factors")
def _():
    X, y = crossed(3000, 60, 25)
    return fit(MixedEffectsRegressor, X, y, "(1 + x0 | g0)", "(1 + x0 || g1)")


@case("slopes of crossed factors cg")
def _():
    X, y = crossed(3000, 60, 25)
    return fit(MixedEffectsRegressor, X, y, "(1 + x0 | g0)", "(1 + x0 || g1)", e_step="cg")


for _e_step in ("exact", "cg"):
    for _bar in ("|", "||"):

        @case(f"2,000 levels (1 + x0 {_bar} g0) {_e_step}", quick=_bar == "|")
        def _(bar=_bar, e_step=_e_step):
            X, y = crossed(20_000, 2_000)
            return fit(MixedEffectsRegressor, X, y, f"(1 + x0 {bar} g0)", e_step=e_step)


@case("poisson of crossed factors laplace")
def _():
    X, y = crossed(3000, 60, 25)
    y = np.random.default_rng(0).poisson(np.exp(0.3 * y))
    return fit(MixedEffectsRegressor, X, y, "g0", "g1", family="poisson", e_step="laplace")


@case("crossed 100,000 rows cg")
def _():
    return fit(MixedEffectsRegressor, *crossed(100_000, 2_000, 800), "g0", "g1", e_step="cg")


# Sparse columns.
def one_hot(n_levels):
    """Groups g and h, a column x and one-hot columns, as a sparse matrix, and y."""
    rng = np.random.default_rng(0)
    n = 3 * n_levels
    g, h, a = (rng.integers(j, size=n) for j in (60, 25, n_levels))
    x = rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=n_levels)[a] + rng.normal(size=n)
    y += 0.7 * rng.normal(size=60)[g] + 0.4 * rng.normal(size=25)[h]
    columns = sparse.csr_array((np.ones(n), (np.arange(n), a)), (n, n_levels))
    return sparse.hstack([np.column_stack([g, h, x]), columns], format="csr"), y


@case("sparse columns made dense")
def _():
    return fit(MixedEffectsRegressor, *one_hot(100), 0, 1)


@case("sparse columns cg", quick=False)
def _():
    return fit(MixedEffectsRegressor, *one_hot(1500), 0, 1)


@case("sparse columns, many probes cg", quick=False)
def _():
    return fit(MixedEffectsRegressor, *one_hot(1500), 0, e_step=ConjugateGradient(n_probes=128))


# What fitted models do.
def newcomers(X, group):
    """The first rows of X, half of them of a level that is new."""
    return X.iloc[:20].assign(**{group: [*X[group].iloc[:10], *[999] * 10]})


@case("sleepstudy new levels")
def _():
    fitted = of_sleepstudy(SLOPES)
    return Fitted(fitted.model, newcomers(fitted.X, "Subject"))


def updated(fitted, X, y):
    fitted.model.update(X, y)
    return Fitted(fitted.model, X)


for _name, _term in (("", SLOPES), (" apart", APART)):

    @case(f"sleepstudy update{_name}")
    def _(term=_term):
        X, y = sleepstudy()
        return updated(of_sleepstudy(term), newcomers(X, "Subject"), y[:20] + 5)


@case("pastes update")
def _():
    X, y = load_pastes(return_X_y=True, as_frame=True)
    fitted = fit(MixedEffectsRegressor, X, y, "(1 | batch/cask)", fixed_effects=[])
    return updated(fitted, X[:20], y[:20] + 1)


@case("poisson update laplace")
def _():
    X, y, _, _ = simulate("poisson", 0)
    fitted = fit(MixedEffectsRegressor, X, y, "g", family="poisson", e_step="laplace")
    return updated(fitted, newcomers(X, "g"), y[:20] + 1)


@case("ordinal update laplace")
def _():
    fitted, y = simulated("ordinal", e_step="laplace"), simulate("ordinal", 0)[1]
    return updated(fitted, newcomers(fitted.X, "g"), y[:20])


@case("sleepstudy profile")
def _():
    X, y = sleepstudy()
    fitted = of_sleepstudy(SLOPES)
    interval = fitted.model.conf_int(method="profile", X=X, y=y)
    return with_width(fitted, "profile", interval)


@case("pastes bootstrap")
def _():
    X, y = load_pastes(return_X_y=True, as_frame=True)
    fitted = fit(MixedEffectsRegressor, X, y, "(1 | batch/cask)", fixed_effects=[])
    options = {"method": "bootstrap", "n_resamples": 5, "random_state": 0}
    return with_width(fitted, "bootstrap", fitted.model.conf_int(X=X, y=y, **options))


def with_width(fitted, name, interval):
    """The limits of the intervals too, in units of their width."""
    width = (interval["upper"] - interval["lower"]).to_numpy()
    fitted.extra[name] = interval.to_numpy(), np.repeat(width, 2)
    return fitted


@case("poisson r2 and icc laplace")
def _():
    fitted = simulated("poisson", e_step="laplace")
    fitted.extra["r2"] = [*fitted.model.r2(), *fitted.model.icc()], 1 / np.sqrt(len(fitted.X))
    return fitted


@case("sleepstudy encoder")
def _():
    X, y = sleepstudy()
    encoder = MixedEffectsEncoder().fit(X[["Subject", "Days"]], y)
    fitted = of_sleepstudy(SLOPES)
    fitted.extra["encoded"] = encoder.transform(X[["Subject", "Days"]]), y.std() / np.sqrt(len(y))
    return fitted


@case("pastes warm start")
def _():
    X, y = load_pastes(return_X_y=True, as_frame=True)
    parameters = {"fixed_effects": [], "method": "ml", "warm_start": True, "max_iter": 2}
    fitted = fit(MixedEffectsRegressor, X, y, "(1 | batch/cask)", **parameters)
    return Fitted(fitted.model.set_params(max_iter=200).fit(X, y), X)


# InstEval.
def insteval(estimator, response, **parameters):
    X, y = load_insteval(return_X_y=True, as_frame=True)
    terms = "students", "instructors", "departments"
    return fit(estimator, X, response(y), *terms, fixed_effects=["service"], **parameters)


_TARGETS = {
    "gaussian": (MixedEffectsRegressor, np.asarray, {}),
    "logistic": (MixedEffectsClassifier, lambda y: y >= 4, {}),
    "ordinal": (MixedEffectsClassifier, np.asarray, {"family": "ordinal"}),
}
_WAYS = {
    "gaussian": ("exact", "cg", "hmc"),
    "logistic": ("laplace", "hmc", "hmc numpy"),
    "ordinal": ("laplace", "hmc", "hmc numpy"),
}
for _name, (_estimator, _response, _parameters) in _TARGETS.items():
    for _way in _WAYS[_name]:
        _e_step = IN_NUMPY if _way == "hmc numpy" else _way
        fit_it = partial(insteval, _estimator, _response, e_step=_e_step, **_parameters)
        add(f"insteval {_name} {_way}", fit_it, quick=False)
add("insteval gaussian ml exact", partial(insteval, MixedEffectsRegressor, np.asarray, method="ml"))
