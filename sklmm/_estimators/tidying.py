"""Estimates, criteria and rows as tables with broom.mixed's column names."""


class Tidying:
    """Methods of a fitted `BaseMixedEffects` that make tidy tables."""
