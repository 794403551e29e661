"""
Outliers: another likelihood is one line
========================================

60 temperature sensors, one a site, send 30 readings each, and one reading in twenty is far too
high (a voltage spike, say). A normal distribution all but excludes such readings, so a Gaussian fit
bends towards them. A Laplace distribution has heavy tails and leaves them where they are.
"""

# %%
# Data of known truth
# -------------------
# The temperature rises with the share of the hour in sunshine; sites differ with an SD of 1 degree.
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if not matplotlib.is_interactive():
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sklmm import CustomFamily, MixedEffectsRegressor

figures = Path(sys.argv[0]).resolve().parent / "figures"
figures.mkdir(exist_ok=True)

n_sites, n_readings = 60, 30
rng = np.random.default_rng(0)
site = np.repeat(np.arange(n_sites), n_readings)
sunshine = rng.uniform(0, 1, len(site))
effects = rng.normal(0, 1, n_sites)
y = 12 + 2 * sunshine + effects[site] + rng.laplace(0, 0.5, len(site))
outlier = rng.random(len(site)) < 0.05
y[outlier] += rng.uniform(8, 20, outlier.sum())
X = pd.DataFrame({"sunshine": sunshine, "site": site})
# The SD of these 60 sites, the best that any fit can find.
truth = {"Intercept": 12.0, "sunshine": 2.0, "SD of sites": effects.std()}


# %%
# Two fits
# --------
# Any function from eta, the linear predictor, and named parameters to a distribution of TensorFlow
# Probability is a likelihood. It is imported inside, so that sklmm starts TensorFlow, quietly.
def laplace(eta, scale):
    import tensorflow_probability as tfp

    return tfp.distributions.Laplace(eta, scale)


models = {
    "Gaussian": MixedEffectsRegressor(["site"], random_state=0),
    "Laplace": MixedEffectsRegressor(
        ["site"], family=CustomFamily(laplace, scale="positive"), random_state=0
    ),
}
found, errors = {"truth": truth}, {}
for name, model in models.items():
    start = time.perf_counter()
    model.fit(X, y)
    print(
        f"{name}: {time.perf_counter() - start:.1f} s, start-up included; "
        f"{model.result_.status.value}"
    )
    sites, fixed = model.variance_components_.iloc[0], model.fixed_effects_
    found[name] = {**fixed["estimate"], "SD of sites": sites["sd"]}
    errors[name] = {**fixed["std_error"], "SD of sites": sites["std_error"]}

found, errors = pd.DataFrame(found), pd.DataFrame(errors)
sites = pd.DataFrame({n: m.random_effects_["site"]["Intercept"] for n, m in models.items()})
rmse = np.sqrt(((sites.sub(effects, axis=0)) ** 2).mean())
print("\nestimates, in degrees:")
print(found.to_string(float_format="{:.3f}".format))
print("\nstandard errors:")
print(errors.to_string(float_format="{:.3f}".format))
print("\nRMSE of the sites' effects:")
print(rmse.to_string(float_format="{:.3f}".format))

# %%
# What each recovers
# ------------------
# The Gaussian fit takes the spikes for warmth: its intercept is half a degree too high, its slope
# vague, and a site with more spikes than others looks warmer than it is. The Laplace fit finds the
# coefficients and the sites, and no reading had to be thrown out.
colors = {"Gaussian": "C1", "Laplace": "C0"}
fig, (data, bars, scatter) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")

data.scatter(sunshine[~outlier], y[~outlier], s=4, color="0.6", label="readings")
data.scatter(sunshine[outlier], y[outlier], s=10, color="C3", marker="x", label="spikes")
data.set(
    xlabel="sunshine (share of the hour)",
    ylabel="reading (°C)",
    ylim=(7, 40),
    title=f"{outlier.mean():.0%} of the readings are spikes",
)
data.legend(frameon=False, loc="upper center", ncols=2, markerscale=2)

rows = np.arange(len(truth))
for offset, (name, color) in zip([-0.12, 0.12], colors.items(), strict=True):
    bars.errorbar(
        found[name] - found["truth"],
        rows + offset,
        xerr=1.96 * errors[name],
        fmt="o",
        color=color,
        capsize=3,
        label=name,
    )
bars.axvline(0, color="0.3", lw=1, ls=":")
bars.set(
    yticks=rows,
    yticklabels=["intercept", "sunshine", "SD of sites"],
    xlabel="estimate minus truth (°C), with 95 % interval",
    title="The Gaussian intercept is too high",
)
bars.invert_yaxis()
bars.legend(frameon=False, loc="lower right")

for name, color in colors.items():
    scatter.scatter(
        effects, sites[name], s=14, color=color, label=f"{name}: RMSE {rmse[name]:.2f} °C"
    )
ends = np.array([effects.min(), effects.max()])
scatter.plot(ends, ends, color="0.3", lw=1, ls=":")
scatter.set(
    xlabel="true effect of the site (°C)",
    ylabel="estimated effect (°C)",
    title="The Gaussian sites are blurred",
)
scatter.legend(frameon=False)
fig.savefig(figures / "custom_family.png", dpi=120)
print(f"\nfigure in {figures}")
