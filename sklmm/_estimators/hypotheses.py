"""Tests of linear combinations of the coefficients."""


class Hypotheses:
    """Methods of a fitted `BaseMixedEffects` that test linear combinations of the coefficients."""
