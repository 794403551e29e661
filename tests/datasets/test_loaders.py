"""The packaged data sets: their facts, and the scikit-learn conventions that all loaders share."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from pandas.api.types import is_float_dtype, is_integer_dtype, is_string_dtype

from sklmm import datasets

# loader -> (rows, features, target)
CATALOGUE = {
    "load_insteval": (
        73_421,
        ["students", "instructors", "departments", "service", "studage", "lectage"],
        "ratings",
    ),
    "load_sleepstudy": (180, ["Days", "Subject"], "Reaction"),
    "load_toenail": (1_908, ["patientID", "treatment", "time", "visit"], "outcome"),
    "load_cbpp": (56, ["herd", "size", "period"], "incidence"),
    "load_epil2": (
        236,
        [
            "subject",
            "period",
            "trt",
            "base",
            "age",
            "V4",
            "lbase",
            "lage",
            "Visit",
            "Base",
            "Age",
        ],
        "y",
    ),
    "load_wine": (72, ["judge", "temp", "contact", "bottle"], "rating"),
    "load_pastes": (60, ["batch", "cask", "sample"], "strength"),
    "load_dyestuff": (30, ["Batch"], "Yield"),
}


@pytest.fixture(params=CATALOGUE)
def case(request):
    """A loader with what is known of its data."""
    return getattr(datasets, request.param), *CATALOGUE[request.param]


def test_every_public_loader_is_in_the_catalogue():
    assert {name for name in datasets.__all__ if name.startswith("load_")} == set(CATALOGUE)


def test_frame_holds_features_then_target(case):
    load, n_rows, features, target = case
    bunch = load(as_frame=True)
    assert bunch.frame.columns.tolist() == [*features, target]
    assert bunch.frame.shape == (n_rows, len(features) + 1)
    assert not bunch.frame.isna().any().any()
    pd.testing.assert_frame_equal(bunch.data, bunch.frame[features])
    pd.testing.assert_series_equal(bunch.target, bunch.frame[target])
    assert bunch.feature_names == features


def test_arrays_are_the_frame_with_strings_coded_in_sorted_order(case):
    load, _, features, target = case
    arrays, frame = load(), load(as_frame=True).frame
    assert arrays.frame is None
    assert arrays.data.dtype == np.float64
    for name, column in [*zip(features, arrays.data.T, strict=True), (target, arrays.target)]:
        if is_string_dtype(frame[name]):
            labels = arrays.categories[name]
            assert labels.tolist() == sorted(set(frame[name]))
            column = labels[column.astype(int)]
        else:
            assert name not in arrays.categories
        np.testing.assert_array_equal(column, frame[name])


@pytest.mark.parametrize("as_frame", [False, True])
def test_return_x_y_gives_the_bunchs_data_and_target(case, as_frame):
    load, *_ = case
    X, y = load(return_X_y=True, as_frame=as_frame)
    bunch = load(as_frame=as_frame)
    assert type(X) is type(bunch.data)
    np.testing.assert_array_equal(X, bunch.data)
    np.testing.assert_array_equal(y, bunch.target)


def test_description_names_source_and_licence_but_not_the_signature(case):
    load, *_ = case
    bunch = load()
    assert "Source: " in bunch.DESCR
    assert "GPL" in bunch.DESCR
    assert "References" in bunch.DESCR
    assert "return_X_y" not in bunch.DESCR
    assert bunch.filename.endswith(".csv.gz")


def test_changing_what_a_loader_returned_does_not_reach_the_next_call(case):
    load, _, _, target = case
    frame = load(as_frame=True).frame
    untouched = frame.copy()
    frame[target] = frame[target].iloc[0]
    pd.testing.assert_frame_equal(load(as_frame=True).frame, untouched)


def test_insteval_has_the_published_levels_and_ratings():
    frame = datasets.load_insteval(as_frame=True).frame
    assert frame[["students", "instructors", "departments"]].nunique().tolist() == [2972, 1128, 14]
    assert frame["instructors"].max() == 2160
    assert sorted(frame["studage"].unique()) == [2, 4, 6, 8]
    assert sorted(frame["lectage"].unique()) == [1, 2, 3, 4, 5, 6]
    assert sorted(frame["service"].unique()) == [0, 1]
    assert sorted(frame["ratings"].unique()) == [1, 2, 3, 4, 5]
    assert frame.iloc[1].tolist() == [1, 1050, 6, 1, 2, 1, 2]
    assert all(is_integer_dtype(dtype) for dtype in frame.dtypes.iloc[:-1])
    assert is_float_dtype(frame["ratings"])


def test_insteval_loads_within_a_fifth_of_a_second():
    def seconds():
        start = time.perf_counter()
        datasets.load_insteval(as_frame=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.2


def test_sleepstudy_is_balanced_over_ten_days():
    frame = datasets.load_sleepstudy(as_frame=True).frame
    assert frame.groupby("Subject")["Days"].apply(list).tolist() == [list(range(10))] * 18
    assert frame.iloc[0].tolist() == [0, 308, 249.56]


def test_toenail_codes_its_outcomes_as_a_classifier_orders_its_classes():
    X, outcome = datasets.load_toenail(return_X_y=True, as_frame=True)
    coded = datasets.load_toenail()
    assert X["patientID"].nunique() == 294
    assert outcome.value_counts().to_dict() == {"none or mild": 1500, "moderate or severe": 408}
    assert coded.target_names == np.unique(outcome).tolist()
    assert np.bincount(coded.target).tolist() == [408, 1500]


def test_cbpp_counts_cases_among_animals():
    frame = datasets.load_cbpp(as_frame=True).frame
    assert is_integer_dtype(frame["incidence"])
    assert (frame["incidence"] <= frame["size"]).all()
    assert (frame["herd"].nunique(), frame["period"].nunique()) == (15, 4)
    # R: colSums(lme4::cbpp[c("incidence", "size")])
    assert frame[["incidence", "size"]].sum().tolist() == [99, 842]


def test_epil2_is_the_trial_of_thall_and_vail():
    frame = datasets.load_epil2(as_frame=True).frame
    assert frame.groupby("subject")["period"].apply(list).tolist() == [[1, 2, 3, 4]] * 59
    patients = frame.drop_duplicates("subject")
    assert patients["trt"].value_counts().to_dict() == {"progabide": 31, "placebo": 28}
    assert is_integer_dtype(frame["y"])
    # As Thall & Vail (1990) print them: the patient with 151 seizures before the treatment.
    assert frame.loc[frame["base"] == 151, "y"].tolist() == [102, 65, 72, 63]


def test_epil2_has_baseline_age_and_time_as_its_docstring_says():
    frame = datasets.load_epil2(as_frame=True).frame
    log_base, log_age = np.log(frame["base"]), np.log(frame["age"])
    for name, expected in {
        "Base": log_base - np.log(4),
        "lbase": log_base - log_base.mean(),
        "Age": log_age,
        "lage": log_age - log_age.mean(),
        "Visit": (frame["period"] - 2.5) / 5,
        "V4": frame["period"] == 4,
    }.items():
        np.testing.assert_allclose(frame[name], expected, rtol=0, atol=1e-13)


def test_wine_has_two_bottles_of_each_condition_for_every_judge():
    frame = datasets.load_wine(as_frame=True).frame
    assert frame.groupby("judge")["bottle"].apply(list).tolist() == [list(range(1, 9))] * 9
    assert frame.groupby(["temp", "contact"])["bottle"].unique().map(list).to_dict() == {
        ("cold", "no"): [1, 2],
        ("cold", "yes"): [3, 4],
        ("warm", "no"): [5, 6],
        ("warm", "yes"): [7, 8],
    }


def test_wine_ratings_are_integers_in_the_published_order():
    X, rating = datasets.load_wine(return_X_y=True, as_frame=True)
    assert is_integer_dtype(rating)
    # R: with(ordinal::wine, table(bottle, rating)), as in Randall (1989), table 6
    assert pd.crosstab(X["bottle"], rating).to_numpy().tolist() == [
        [3, 4, 2, 0, 0],
        [1, 5, 3, 0, 0],
        [1, 2, 5, 1, 0],
        [0, 5, 3, 1, 0],
        [0, 3, 4, 1, 1],
        [0, 2, 4, 2, 1],
        [0, 1, 2, 2, 4],
        [0, 0, 3, 5, 1],
    ]


def test_pastes_samples_are_the_casks_within_batches():
    frame = datasets.load_pastes(as_frame=True).frame
    assert (frame["batch"] + ":" + frame["cask"]).tolist() == frame["sample"].tolist()
    assert (frame["sample"].value_counts() == 2).all()


@pytest.mark.parametrize(("version", "mean"), [(1, 1527.5), (2, 5.6656)])
def test_dyestuff_mean_is_lmers_intercept(version, mean):
    # The design is balanced, so the fixed effect is the mean:
    # R: fixef(lmer(Yield ~ 1 + (1 | Batch), Dyestuff)), and the same with Dyestuff2
    X, y = datasets.load_dyestuff(version=version, return_X_y=True, as_frame=True)
    assert y.mean() == pytest.approx(mean, abs=1e-9)
    assert is_float_dtype(y)
    assert X["Batch"].value_counts().to_dict() == dict.fromkeys("ABCDEF", 5)


@pytest.mark.parametrize("version", [0, 3, "2", None])
def test_dyestuff_of_another_version_is_an_error(version):
    with pytest.raises(ValueError, match="use version=1 for Dyestuff or version=2 for Dyestuff2"):
        datasets.load_dyestuff(version=version)


def test_loading_imports_no_tensorflow():
    code = (
        "import sys; from sklmm import datasets\n"
        "datasets.load_insteval(); datasets.make_crossed(100, (5, 5))\n"
        "print([m for m in sys.modules if m.startswith(('tensorflow', 'keras', 'tf_keras'))])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
