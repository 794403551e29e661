"""
Diagnostics of a model of seizures
==================================

Epileptics' seizures in four periods of two weeks, under a drug or a placebo (Thall & Vail 1990). A
Poisson model with an effect for each patient looks fine, and is wrong: ``check`` says so in plain
words, quantile residuals show how, influence shows who decides, and averages over the patients say
what a new one is to expect.
"""

# %%
# A first model
# -------------
# Counts, so Poisson; patients differ, so each has an effect.
import sys
from pathlib import Path

import matplotlib
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sklmm import MixedEffectsRegressor
from sklmm.datasets import load_epil2
from sklmm.inspection import InfluenceDisplay, QuantileResidualsDisplay

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

table = load_epil2(as_frame=True).frame
formula = "y ~ Base + trt + Age + Visit + (1 | subject)"
poisson = MixedEffectsRegressor.from_formula(formula, family="poisson", random_state=0).fit(table)
print(poisson.tidy(conf_int=True).round(3))

# %%
# What may be wrong with it
# -------------------------
# One table, which prints as sentences.
print(poisson.check(table, random_state=0))

# %%
# A better one
# ------------
# A family with a dispersion: AIC and BIC fall, and what a visit changes is less certain. The drug's
# standard error stays, as it is the patients that it is compared between.
negative_binomial = MixedEffectsRegressor.from_formula(
    formula, family="negative_binomial", random_state=0
).fit(table)
print(negative_binomial.check(table, random_state=0))
models = {"Poisson": poisson, "negative binomial": negative_binomial}
print(pd.concat({name: model.glance() for name, model in models.items()}).round(1))
both = pd.concat({name: model.tidy() for name, model in models.items()}, names=["model"])
fixed = both[both["effect"] == "fixed"].reset_index("model")
print(fixed.pivot(index="term", columns="model", values="std.error").round(3))

# %%
# Their residuals
# ---------------
# Quantile residuals of the right model are uniform. Poisson's are too often near 0 and 1: its
# counts spread too little.
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
for axis, (name, model) in zip(axes, models.items(), strict=True):
    QuantileResidualsDisplay.from_estimator(model, table, random_state=0, ax=axis)
    axis.set_title(name)
figure.savefig(figures / "diagnostics_residuals.png", dpi=120)

# %%
# Who decides
# -----------
# The change of the coefficients without each patient, by Cook's distance. Patient 49 had 151
# seizures in the eight weeks before, 40 more than anybody else.
display = InfluenceDisplay.from_estimator(negative_binomial, table, by="subject")
display.figure_.savefig(figures / "diagnostics_influence.png", dpi=120)

# %%
# What the drug does
# ------------------
# For a new patient the expected count is an average over patients, which is more than the count of
# the typical one, whose effect is 0. The interval is that of a new patient's count.
average = table[["Base", "Age", "Visit"]].mean()
new = table.drop_duplicates("trt").assign(subject=-1, **average)
mean = negative_binomial.predict(new)
lower, upper = negative_binomial.predict_interval(new, coverage=0.8).T
typical = negative_binomial.set_params(handle_unknown="typical").predict(new)
told = {"mean": mean, "typical patient": typical, "lower": lower, "upper": upper}
print(pd.DataFrame(told, index=new["trt"]).round(1))
