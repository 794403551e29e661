"""The published data sets and their models, as the programs behind reference.json fitted them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor
from sklmm.datasets import (
    load_cbpp,
    load_dyestuff,
    load_epil2,
    load_pastes,
    load_sleepstudy,
    load_toenail,
    load_wine,
)

HERE = Path(__file__).parent
MACHINES = ["MachineA", "MachineB", "MachineC"]

# Gaussian model -> random_effects, fixed_effects
MODELS = {
    "sleepstudy": (["(1 + Days | Subject)"], None),
    "sleepstudy_uncorr": (["(1 + Days || Subject)"], None),
    "dyestuff": (["Batch"], None),
    "dyestuff2_singular": (["Batch"], None),
    "pastes_nested": (["(1 | batch/cask)"], []),
    "machines": (["Worker", "(1 | Worker:Machine)"], MACHINES[1:]),
    "machines_slopes": (["(0 + MachineA + MachineB + MachineC | Worker)"], MACHINES[1:]),
}
#: The generalized ones, and their entries by quadrature and by Laplace's approximation.
QUADRATURE = {
    "toenail": ("toenail_agq50", "toenail_agq1"),
    "cbpp": ("cbpp_agq25", "cbpp_agq1"),
    "epil2": ("epil2_poisson_agq25", "epil2_poisson_agq1"),
    "wine": ("wine_clmm_agq25", "wine_clmm_agq1"),
}


def answers():
    """reference.json: see its comment for the R that made it."""
    return json.loads((HERE / "reference.json").read_text())


def gaussian_tables():
    """(X, y) of each data set of `MODELS`."""
    machines = pd.read_csv(HERE / "data" / "Machines.csv")
    dummies = pd.get_dummies(machines["Machine"], prefix="Machine", prefix_sep="", dtype=float)
    return {
        "sleepstudy": load_sleepstudy(return_X_y=True, as_frame=True),
        "dyestuff": load_dyestuff(return_X_y=True, as_frame=True),
        "dyestuff2": load_dyestuff(version=2, return_X_y=True, as_frame=True),
        "pastes": load_pastes(return_X_y=True, as_frame=True),
        "machines": (
            pd.concat([machines[["Worker", "Machine"]], dummies], axis=1),
            machines["score"],
        ),
    }


def gaussian_fit(name, method, tables):
    """The fitted model of `MODELS`."""
    random_effects, fixed_effects = MODELS[name]
    model = MixedEffectsRegressor(random_effects, fixed_effects=fixed_effects, method=method)
    return model.fit(*tables[name.split("_")[0]])


def lme4_sds(answer):
    """SDs of an entry by lme4, without the residual's."""
    if "varcorr_sd" in answer:
        return np.array([answer["varcorr_sd"][factor] for factor in ("s", "d", "dept")])
    return np.concatenate([part["sd"] for part in answer["varcorr"].values()])


def toenail():
    X, y = load_toenail(return_X_y=True, as_frame=True)
    table = pd.DataFrame(
        {"patientID": X["patientID"], "time": X["time"], "treatmentterbinafine": 0.0}
    )
    table.loc[X["treatment"] == "terbinafine", "treatmentterbinafine"] = 1.0
    table["treatmentterbinafine:time"] = table["treatmentterbinafine"] * table["time"]
    return MixedEffectsClassifier(["patientID"]), table, y == "moderate or severe", None


def cbpp():
    frame = load_cbpp(as_frame=True).frame
    table = frame[["herd"]].assign(
        **{f"period{k}": (frame["period"] == k).astype(float) for k in (2, 3, 4)}
    )
    model = MixedEffectsRegressor(["herd"], family="binomial")
    return model, table, frame["incidence"] / frame["size"], frame["size"]


def epil2():
    frame = load_epil2(as_frame=True).frame
    table = frame[["subject", "Base", "Age", "Visit"]].assign(
        trtprogabide=(frame["trt"] == "progabide").astype(float)
    )
    table["Base:trtprogabide"] = table["Base"] * table["trtprogabide"]
    return MixedEffectsRegressor(["subject"], family="poisson"), table, frame["y"], None


def wine():
    X, y = load_wine(return_X_y=True, as_frame=True)
    table = pd.DataFrame(
        {
            "judge": X["judge"],
            "tempwarm": (X["temp"] == "warm").astype(float),
            "contactyes": (X["contact"] == "yes").astype(float),
        }
    )
    return MixedEffectsClassifier(["judge"], family="ordinal"), table, y, None


DATA = {"toenail": toenail, "cbpp": cbpp, "epil2": epil2, "wine": wine}


def fixed(entry):
    """Coefficients, standard errors and SD of an entry of reference.json, named as ours are."""
    if "fixef" in entry:
        names = {"(Intercept)": "Intercept"}
        coef = pd.Series(entry["fixef"]).rename(names)
        std = pd.Series(entry["fixef_se"]).rename(names)
        (group,) = entry["varcorr"].values()
        return coef, std, group["sd"][0]
    coef = pd.Series({**entry["thresholds"], **entry["beta"]})
    return coef, pd.Series(entry["se"]).reindex(coef.index), entry["sd"]


def fitted(name, **parameters):
    """The fitted model of `DATA`."""
    model, X, y, weights = DATA[name]()
    return model.set_params(**parameters).fit(X, y, sample_weight=weights)
