"""What each family accepts as y, what it makes of it, and what it says of anything else."""

import numpy as np
import pandas as pd
import pytest

from sklmm import families as fam


def test_numeric_responses_bind():
    for family, y in [
        (fam.Gaussian(), [-1, 2.5]),
        (fam.StudentT(), np.array([[1], [2]])),
        (fam.Poisson(), np.array([0, 3], np.int8)),
        (fam.NegativeBinomial(), pd.Series([0.0, 7.0])),
        (fam.Gamma(), [0.1, 2]),
        (fam.InverseGaussian(), [0.1, 2]),
        (fam.Beta(), [0.1, 0.9]),
        (fam.OrderedBeta(), [0, 1]),
        (fam.Binomial(), [0, 0.25]),
    ]:
        response = family.bind(y, [1, 2])
        assert response.y.dtype == response.weights.dtype == np.float64
        np.testing.assert_array_equal(response.y, np.ravel(y))
        np.testing.assert_array_equal(response.weights, [1, 2])
        assert response.classes is response.keep is response.n_classes is None
        assert response.n_predictors == 1
        assert response.parameters == family.parameters()
        np.testing.assert_array_equal(family.bind(y).weights, [1, 1])


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["yes", "no", "yes"], ["no", "yes"]),
        ([True, False, True], [False, True]),
        ([2.0, -1.0, 2.0], [-1, 2]),
        (pd.Series(["b", "a", "b"], dtype="category"), ["a", "b"]),
    ],
    ids=["str", "bool", "float", "category"],
)
def test_bernoulli_binds_two_labels(y, classes):
    response = fam.Bernoulli().bind(y)
    assert response.classes.tolist() == classes
    assert response.y.tolist() == [1, 0, 1]
    assert response.n_classes == 2
    assert response.n_predictors == 1


def test_binomial_binds_counts():
    response = fam.Binomial().bind([[3, 1], [0, 0], [0, 2]], [1, 1, 10])
    assert response.y.tolist() == [0.75, 0, 0]
    assert response.weights.tolist() == [4, 0, 20]
    assert response.keep.tolist() == [True, False, True]
    assert response.classes is None


def test_ordinal_and_categorical_bind_labels():
    response = fam.Ordinal().bind([4, 2.5, 1, 4])
    assert response.classes.tolist() == [1, 2.5, 4]
    assert response.y.tolist() == [2, 1, 0, 2]
    assert response.parameters == {"spacing_1": "positive"}
    assert response.n_predictors == 1
    response = fam.Categorical().bind(np.array(["b", "a", "c"], dtype=object))
    assert response.classes.tolist() == ["a", "b", "c"]
    assert response.n_predictors == 2
    assert response.parameters == {}


def test_ordinal_keeps_the_order_of_an_ordered_categorical():
    levels = ["never", "low", "mid", "high"]
    y = pd.Series(pd.Categorical(["high", "low", "mid"], categories=levels, ordered=True))
    response = fam.Ordinal().bind(y)
    assert response.classes.tolist() == ["low", "mid", "high"]
    assert response.y.tolist() == [2, 0, 1]


BAD_Y = {
    "poisson negative": (fam.Poisson(), [1, -2], r"Poisson: y must be a count.*-2\.0 \(row 1\): "),
    "negative_binomial fraction": (
        fam.NegativeBinomial(),
        [1, 2, 0.5],
        r"NegativeBinomial: y must be a count.*0\.5 \(row 2\): round it",
    ),
    "gamma zero": (fam.Gamma(), [0.0, 1], r"Gamma: y must be positive, not 0\.0 \(row 0\): drop"),
    "lognormal zero": (fam.LogNormal(), [0.0, 1], r"LogNormal: y must be positive, not 0\.0"),
    "inverse_gaussian negative": (
        fam.InverseGaussian(),
        [2, -1.0],
        r"InverseGaussian: y must be positive, not -1\.0 \(row 1\): drop",
    ),
    "beta one": (
        fam.Beta(),
        [0.5, 1],
        r"Beta: y must be strictly between 0 and 1, not 1\.0 \(row 1\): move it inside",
    ),
    "ordered_beta above": (
        fam.OrderedBeta(),
        [0, 1.5],
        r"OrderedBeta: y must be from 0 to 1, not 1\.5 \(row 1\): rescale it",
    ),
    "not finite": (
        fam.Gaussian(),
        [0, np.nan],
        r"Gaussian: y must be finite, not nan \(row 1\): drop or impute",
    ),
    "strings": (fam.Gaussian(), ["1.5", "b"], r"y must be numeric, not .*'b'.* \(row 1\): convert"),
    "two columns": (fam.Poisson(), np.ones((3, 2)), r"y must have one column, not shape \(3, 2\)"),
    "binomial count": (
        fam.Binomial(),
        [0.5, 3],
        r"Binomial: y must be a proportion in \[0, 1\], not 3\.0 \(row 1\): divide by the trials",
    ),
    "binomial negative": (
        fam.Binomial(),
        [[1, 2], [-1, 2]],
        r"Binomial: y must be two columns of nonnegative counts.*-1.*\(row 1\): correct",
    ),
    "bernoulli three": (
        fam.Bernoulli(),
        ["a", "b", "c"],
        r"Bernoulli: y must have two classes, not 3; a third is c \(row 2\): use 'categorical'",
    ),
    "bernoulli one": (fam.Bernoulli(), ["a", "a"], r"y has one class only \('a'\): at least two"),
    "categorical one": (fam.Categorical(), [1, 1], r"y has one class only \(1\): at least two"),
    "ordinal one": (fam.Ordinal(), [1, 1], r"y has one class only \(1\): at least two"),
    "ordinal two": (fam.Ordinal(), [1, 2], r"at least three classes, not 2 \(1, 2\): use 'bern"),
    "missing label": (
        fam.Categorical(),
        np.array(["a", None], dtype=object),
        r"Categorical: y must be a label, not None \(row 1\): drop the row",
    ),
    "mixed labels": (
        fam.Categorical(),
        np.array(["a", 1], dtype=object),
        r"y must be labels of one type \(str, as in row 0\), not 1 \(row 1\): convert",
    ),
    "labels in two columns": (fam.Bernoulli(), [["a", "b"]], r"one column, not shape \(1, 2\)"),
}


@pytest.mark.parametrize("case", BAD_Y)
def test_a_y_outside_the_support_is_named(case):
    family, y, message = BAD_Y[case]
    with pytest.raises(ValueError, match=message):
        family.bind(y)


def test_a_hurdle_has_the_numbers_of_y():
    """Logarithms would have no number left for zeros."""
    response = fam.ZeroInflated(fam.LogNormal()).bind([0, 1, 2.5], [1, 1, 3])
    assert response.y.tolist() == [0, 1, 2.5]
    assert response.masses == 1
    assert response.log_constant == 0
