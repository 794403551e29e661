"""
What the tutorial's loop gets wrong
===================================

TensorFlow's tutorial "Linear mixed effects models" fits InstEval by Monte Carlo EM: HMC draws of
the effects, one Adam step on the negative log joint density, 1,500 times over, with the residual SD
pinned to 1. We run that loop twice, beside this library's default: with its own steps, but on the
rows of a quarter of the students, and for 350 iterations after 200 transitions of warm-up instead
of 1,500 after 1,000, to be done in a minute. ``plot_insteval.py`` fits the same model by this
library's own HMC.

- The published run never trains its standard deviations: its variables get no gradient, so they
  stay at their start, exp(0) = 1. Pinning them to 1 on all rows reproduces its trace and its loss
  of about 98,150.
- With the standard deviations trained, the loss falls further but the loop sticks: 14 department
  effects can carry the ratings' level of 3.3, the intercept hardly moves, and the department SD
  follows the effects up. 350 steps of Adam, of 0.01 each, could carry the intercept to 3.5.
"""

# %%
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sklmm import HMC, Adam, Gaussian, MixedEffectsRegressor, RandomEffect
from sklmm.datasets import load_insteval
from sklmm.inspection import TraceDisplay

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

X, y = load_insteval(return_X_y=True, as_frame=True)
quarter = X["students"] % 4 == 0
X, y = X[quarter], y[quarter]
train = np.random.RandomState(0).rand(len(X)) < 0.8
terms = ["students", "instructors", "departments"]


def tutorial(sd):
    """The tutorial's loop: one chain, 5 transitions an EM step, Adam on the draw reached."""
    return MixedEffectsRegressor(
        [RandomEffect(term, sd=sd) for term in terms],
        fixed_effects=["service"],
        family=Gaussian(sigma=1.0),
        e_step=HMC(step_size=0.015, num_leapfrog_steps=3, n_chains=1, n_warmup=200, n_steps=5),
        m_step=Adam(learning_rate=0.01),
        max_iter=350,
        random_state=0,
    )


models = {
    "tutorial, SDs at 1": tutorial(1.0),
    "tutorial, SDs trained": tutorial(None),
    "sklmm, default": MixedEffectsRegressor(terms, fixed_effects=["service"], random_state=0),
}
rows = {}
for name, model in models.items():
    start = time.perf_counter()
    model.fit(X[train], y[train])
    seconds = time.perf_counter() - start
    error = y[~train] - model.predict(X[~train])
    rows[name] = {
        "seconds": seconds,
        "iterations": model.n_iter_,
        "acceptance": model.history_["acceptance_rate"].mean(),
        "intercept": model.intercept_,
        "service": model.coef_[0],
        **dict(
            zip(
                [f"SD {t}" for t in [*terms, "residual"]],
                model.variance_components_["sd"],
                strict=True,
            )
        ),
        "test RMSE": float(np.sqrt(np.mean(error**2))),
    }
for name in list(models)[:2]:
    rows[name]["last loss"] = models[name].history_["loss"].iloc[-1]
print(f"{train.sum():,} rows to fit, {(~train).sum():,} to predict")
print(pd.DataFrame(rows).to_string(float_format="{:.4f}".format, na_rep=""))

# %%
# Every trained parameter moves, but not to the maximum: follow the intercept and the department SD.
loop = models["tutorial, SDs trained"].history_
names = ["Intercept", "service", *(f"sd({t}, Intercept)" for t in terms)]
moved = loop[names].max() - loop[names].min()
print("\nrange of each trained parameter over the loop's iterations:")
print(moved.to_string(float_format="{:.4f}".format))

fig, axes = plt.subplots(1, 3, figsize=(13.5, 3.8), layout="constrained")
for name in list(models)[:2]:
    axes[0].plot(models[name].history_["loss"], lw=0.8, label=name)
axes[0].set(
    xlabel="EM iteration",
    ylabel=r"$-\log p(y, b \mid \theta)$",
    title="Loss, residual SD pinned to 1",
)
for column, label in {
    "Intercept": "intercept",
    "sd(departments, Intercept)": "department SD",
}.items():
    (line,) = axes[1].plot(loop[column], label=f"{label}, tutorial")
    target = models["sklmm, default"].history_[column].iloc[-1]
    axes[1].axhline(target, color=line.get_color(), ls=":", label=f"{label}, maximum likelihood")
axes[1].set(xlabel="EM iteration", ylabel="rating points", title="SDs trained: stuck")
for ax in axes[:2]:
    ax.legend(frameon=False, fontsize="x-small")
looped = models["tutorial, SDs trained"]
departments = looped.random_effects_["departments"].index
TraceDisplay.from_estimator(looped, term="departments", levels=list(departments[::3]), ax=axes[2])
axes[2].set(
    xlabel="EM iteration",
    ylabel="effect on the rating",
    title="Departments carry the level of the ratings",
)
axes[2].legend(
    frameon=False, fontsize="small", title="department", loc="center left", bbox_to_anchor=(1, 0.5)
)
fig.savefig(figures / "tutorial_mcem.png", dpi=120)
print(f"\nfigure in {figures}")
