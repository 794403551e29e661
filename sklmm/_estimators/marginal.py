"""Averages, marginal means and comparisons of a fitted model, by packages made for them."""


class MarginalMeans:
    """Methods of a fitted `BaseMixedEffects` that hand the model to packages of marginal means."""
