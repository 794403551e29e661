"""The tables of a fitted model, each made when it is first asked for: a small fit takes as long."""

from copy import copy

import pandas as pd

from sklmm._fitted import tables


class OnDemand:
    """A fitted attribute that is made from (the `FittedModel`, its `EMResult`) and then kept."""

    def __init__(self, make):
        self._make = make

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, model, owner=None):
        if model is None:
            return self
        known = vars(model)
        if "_fitted" not in known:
            raise AttributeError(
                f"{type(model).__name__!r} object has no attribute {self._name!r} before it is "
                "fitted: call fit."
            )
        value = known[self._name] = self._make(known["_fitted"], known["result_"])
        return value


def _by_term(field):
    def make(fitted, result):
        arrays = getattr(result, field)
        return None if arrays is None else fitted.by_term(arrays)

    return OnDemand(make)


def _errors(field):
    def make(fitted, result):
        labels = fitted.labels
        return pd.Series(labels.std_errors(getattr(result, field) ** 2), index=labels.names)

    return OnDemand(make)


def _part(component):
    def make(fitted, result):
        names = fitted.part_names(component)
        return tables.part_effects_table(fitted.labels, result, names) if names else None

    return OnDemand(make)


class Tables:
    """A mixin of estimators that have `_fitted` and `result_`: what they say, as tables."""

    fixed_effects_ = OnDemand(lambda fitted, own: tables.fixed_effects_table(fitted.labels, own))
    zero_inflation_effects_ = _part("zero_inflation")
    dispersion_effects_ = _part("dispersion")
    nominal_effects_ = _part("nominal")
    random_effects_ = _by_term("effects")
    random_effects_std_ = _by_term("effects_std")
    random_effects_mc_error_ = _by_term("effects_mc_error")
    random_effects_std_mc_error_ = _by_term("effects_std_mc_error")
    cov_re_ = OnDemand(lambda fitted, own: fitted.covariances(own))
    variance_components_ = OnDemand(
        lambda fitted, own: tables.variance_components_table(fitted.labels, own)
    )
    history_ = OnDemand(lambda fitted, own: tables.history_table(fitted.labels, own.history))
    mc_error_ = _errors("mc_error")
    std_mc_error_ = _errors("std_mc_error")

    def __getstate__(self):
        # What is saved has them all, whichever were asked for.
        whole = copy(self)
        if "_fitted" in vars(whole):
            whole._make_tables()
        return super(Tables, whole).__getstate__()

    def _make_tables(self):
        """Make all of the tables, in one order."""
        for name in TABLES:
            value = getattr(self, name)
            self.__dict__.pop(name)
            self.__dict__[name] = value

    def _forget_tables(self, first=""):
        """Let go of those whose names begin so, which are another model's or other rows'."""
        for name in TABLES:
            if name.startswith(first):
                self.__dict__.pop(name, None)


TABLES = [name for name, own in vars(Tables).items() if isinstance(own, OnDemand)]
