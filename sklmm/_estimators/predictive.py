"""The distribution that a fitted model predicts for new rows: intervals, quantiles, residuals."""


class Predictive:
    """Methods of a fitted regressor that tell the distribution of a new observation."""
