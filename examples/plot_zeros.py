"""
Counts with too many zeros
==========================

Fish caught by visitors of lakes: some never wet a line, and their zeros are of another kind than
those of anglers without luck. A model of both parts tells who fishes, and how much is caught.
"""

# %%
# Visitors
# --------
# Of 80 lakes, each with its own stock. Who comes with children fishes less often, and who has a
# boat catches more; the spread of the catch is larger than Poisson's.
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from scipy.special import expit

from sklmm import MixedEffectsRegressor, anova

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

rng = np.random.default_rng(1)
n = 2400
table = pd.DataFrame(
    {
        "lake": rng.integers(80, size=n),
        "children": rng.integers(4, size=n),
        "boat": rng.integers(2, size=n),
    }
)
stock = rng.normal(0, 0.7, 80)[table["lake"]]
rate = np.exp(0.9 + 0.6 * table["boat"] + stock)
idle = rng.random(n) < expit(-1.2 + 0.7 * table["children"])
caught = np.where(idle, 0, rng.negative_binomial(1.5, 1.5 / (1.5 + rate)))
print(f"zeros: {np.mean(caught == 0):.0%} of the visitors, {np.mean(idle):.0%} did not fish")

# %%
# Four models
# -----------
# The zeros' own columns are those of ``zero_inflation``. Likelihoods of larger models are compared
# by ``anova``, where the smaller ones are on the bound of a probability of 0.
known = {"fixed_effects": ["boat"], "random_state": 0}
parts = {"zero_inflation": "~ children"}
models = {
    "Poisson": MixedEffectsRegressor(["lake"], family="poisson", **known),
    "negative binomial": MixedEffectsRegressor(["lake"], family="negative_binomial", **known),
    "zero-inflated Poisson": MixedEffectsRegressor(["lake"], family="poisson", **parts, **known),
    "zero-inflated negative binomial": MixedEffectsRegressor(
        ["lake"], family="negative_binomial", **parts, **known
    ),
}
for model in models.values():
    model.fit(table, caught)
print(pd.Series({name: model.aic_ for name, model in models.items()}, name="AIC").round(1))
print(anova(models["negative binomial"], models["zero-inflated negative binomial"]).round(3))

best = models["zero-inflated negative binomial"]
print(best.summary())

# %%
# What the parts say
# ------------------
# ``predict`` is the mean with the zeros counted in. Its parts are the catch of those who fish, and
# the probability that a visitor does not.
visitors = pd.DataFrame({"lake": 0, "boat": 1, "children": np.arange(4)})
for component in (None, "conditional", "zero"):
    print(component or "mean", best.predict(visitors, component=component).round(2))

# %%
# Predicted counts
# ----------------
# Draws from each model beside the counts: Poisson has too few zeros and too short a tail, and the
# two single families put the zeros of those who do not fish into the catch of the others.
counts = np.arange(11)
seen = np.array([np.mean(caught == k) for k in counts])
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.bar(counts, seen, color="0.85", label="seen")
for (name, model), marker in zip(models.items(), "osD^", strict=True):
    draws = model.sample_y(table, 50, random_state=0)
    axis.plot(counts, [np.mean(draws == k) for k in counts], marker, ms=5, label=name)
axis.set(xlabel="fish caught", ylabel="share of the visitors", xticks=counts)
axis.legend(frameon=False)
figure.savefig(figures / "zeros.png", dpi=120)
