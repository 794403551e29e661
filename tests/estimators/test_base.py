"""What both estimators share."""

from inspect import signature

from sklmm import MixedEffectsClassifier, MixedEffectsRegressor


def test_shared_parameters_have_the_same_defaults_and_places():
    regressor = {p.name: p for p in signature(MixedEffectsRegressor).parameters.values()}
    classifier = {p.name: p for p in signature(MixedEffectsClassifier).parameters.values()}
    alone = ("dof", "zero_inflation", "dispersion")
    assert list(classifier) == [name for name in regressor if name not in alone]
    assert all(regressor[name] == own for name, own in classifier.items() if name != "family")
