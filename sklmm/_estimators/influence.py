"""What single rows and groups do to the estimates."""


class Influence:
    """Methods of a fitted `BaseMixedEffects` that tell what rows and groups do to the estimates."""
