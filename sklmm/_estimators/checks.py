"""One table of what may be wrong with a fitted model, in plain words."""


class Checks:
    """Methods of a fitted `BaseMixedEffects` that check the model."""
