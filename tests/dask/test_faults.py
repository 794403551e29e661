"""What is wrong with a partition, with a worker or with the cluster: told, or survived."""

import os
import signal
import threading
import time

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from sklmm import MixedEffectsRegressor
from sklmm.dask import DaskMixedEffectsRegressor
from sklmm.dask.cluster import Session
from tests.dask.test_cluster import assert_empty
from tests.test_batches import assert_same, table


@pytest.fixture(scope="module")
def frame():
    X, y = table(np.random.default_rng(0), 300)
    return X.assign(stars=y)


MODEL = {"random_effects": ["g", "h"], "fixed_effects": ["x", "t"], "random_state": 0}


def of_parts(make, frame, n=5, **known):
    """A table whose partitions a function makes of their numbers and of their rows."""
    parts = np.array_split(np.arange(len(frame)), n)

    def made(number):
        return make(number, frame.iloc[parts[number]].copy())

    return dd.from_map(made, range(n), meta=frame.iloc[:0], **known)


def as_it_is(number, part):
    return part


def fit(columns, **parameters):
    return DaskMixedEffectsRegressor(**{**MODEL, **parameters}).fit(columns, columns["stars"])


class TestPartitions:
    @pytest.mark.parametrize(
        ("column", "change", "kind", "message"),
        [
            ("g", lambda c: c.astype(float).where(c.index != 130), ValueError, "'g' .*missing"),
            ("x", lambda c: c.where(c.index != 130), ValueError, "NaN .*'x'"),
            ("stars", lambda c: c.where(c.index != 130), ValueError, "NaN: 1 miss.*row 10 .*130"),
            ("g", lambda c: c.astype(str), TypeError, "'g' .*kind string.*partition 0"),
            ("x", lambda c: c.astype(str) + "a", ValueError, "'x'"),
            ("x", lambda c: c * 1e300, ValueError, "'x'"),
        ],
    )
    def test_the_error_is_the_local_one_and_names_the_partition(
        self, client, frame, column, change, kind, message, capfd
    ):
        def make(number, part):
            return part.assign(**{column: change(part[column])}) if number == 2 else part

        model = DaskMixedEffectsRegressor(**MODEL)
        before = vars(model).copy()
        columns = of_parts(make, frame)
        with pytest.raises(kind, match=f"^partition 2: .*{message}") as caught:
            model.fit(columns, columns["stars"])
        assert vars(model) == before
        assert caught.value.__cause__ is None
        assert "Traceback" not in capfd.readouterr().err
        assert_empty(client)

    def test_empty_partitions_and_rows_of_weight_0(self, client, frame):
        def make(number, part):
            if number in (0, 3):
                return part[:0]
            # Not even a missing group counts there.
            part = part.assign(times=part.index % 3, g=part["g"].astype(float))
            return part.assign(g=part["g"].where(part["times"] > 0))

        columns = of_parts(make, frame.assign(times=0))
        whole = columns.compute()
        model = DaskMixedEffectsRegressor(**MODEL)
        model.fit(columns, columns["stars"], columns["times"])
        local = MixedEffectsRegressor(**MODEL).fit(whole, whole["stars"], whole["times"])
        assert_same(model.to_local(), local, frame)
        empty = of_parts(lambda number, part: part[:0], frame)
        with pytest.raises(ValueError, match="no row to fit: all partitions are empty"):
            fit(empty)

    def test_categories_are_those_of_each_partition(self, client, frame):
        def make(number, part):
            labels = sorted(part["h"].unique(), reverse=number % 2 == 0)
            return part.assign(h=pd.Categorical(part["h"], labels))

        columns = of_parts(make, frame)
        # What a collection declares is not true of its partitions.
        for own in (columns, columns.assign(h=columns["h"].astype("category"))):
            local = MixedEffectsRegressor(**MODEL).fit(frame, frame["stars"])
            assert_same(fit(own).to_local(), local, frame)

    def test_an_order_that_is_declared_is_kept_and_two_are_an_error(self, client, frame):
        order = list("rqpts")

        def make(number, part):
            return part.assign(h=pd.Categorical(part["h"], order, ordered=True))

        found = fit(of_parts(make, frame)).random_effects_["h"]
        assert found.index.tolist() == order

        def differ(number, part):
            known = order[::-1] if number == 2 else order
            return part.assign(h=pd.Categorical(part["h"], known, ordered=True))

        with pytest.raises(ValueError, match=r"^partition 2: .*'h' has the ordered categories 's'"):
            fit(of_parts(differ, frame))

    def test_categorize_is_not_believed(self, client, frame):
        ordered = frame.assign(h=pd.Categorical(frame["h"], list("rqpts"), ordered=True))
        columns = dd.from_pandas(ordered, npartitions=4)
        local = MixedEffectsRegressor(**MODEL).fit(ordered, ordered["stars"])
        own = fit(columns.categorize(columns=["h"]))
        assert_same(own.to_local(), local, frame)

    def test_a_declared_integer_with_a_missing_value(self, client, frame):
        def make(number, part):
            part["w"] = 1 + part.index % 2
            return part.assign(w=part["w"].astype(float).where(part.index != 130))

        columns = of_parts(make, frame.assign(w=1))
        assert columns["w"].dtype == np.int64
        with pytest.raises(ValueError, match=r"^partition 2: .*'w'"):
            fit(columns, fixed_effects=["x", "w"])

    def test_y_of_another_length(self, client, frame):
        columns = of_parts(as_it_is, frame)
        y = of_parts(lambda number, part: part[: 60 - number], frame)["stars"]
        with pytest.raises(ValueError, match=r"^partition 1: y: .*inconsistent numbers"):
            DaskMixedEffectsRegressor(**MODEL).fit(columns, y)

    def test_y_in_another_order(self, client, frame):
        # from_pandas sorts by the index: those of X go elsewhere, and the answers stay.
        shuffled = frame.set_index(np.random.default_rng(0).permutation(len(frame)))
        columns = dd.from_pandas(shuffled, npartitions=5)
        with pytest.raises(ValueError, match=r"^partition 0: y: its index is not that of X.*row 0"):
            DaskMixedEffectsRegressor(**MODEL).fit(
                columns, dd.from_pandas(frame["stars"].set_axis(frame.index + 1), npartitions=5)
            )
        local = MixedEffectsRegressor(**MODEL).fit(frame, frame["stars"])
        answers = dd.from_pandas(frame["stars"].set_axis(shuffled.index), npartitions=5)
        model = DaskMixedEffectsRegressor(**MODEL).fit(columns, answers)
        assert_same(model.to_local(), local, frame)
        unsorted = dd.from_pandas(shuffled, npartitions=5, sort=False)
        with pytest.raises(ValueError, match="its index is not that of X"):
            model.fit(unsorted, answers)
        with pytest.raises(ValueError, match="its index is not that of X"):
            model.score(unsorted, answers)
        model.fit(unsorted, dd.from_pandas(frame["stars"], npartitions=5).values)
        assert_same(model.to_local(), local, frame)

    def test_an_error_of_a_collection_is_raised_as_it_is(self, client, frame):
        def make(number, part):
            if number == 3:
                raise FileNotFoundError("part3.parquet")
            return part

        with pytest.raises(FileNotFoundError, match="part3"):
            fit(of_parts(make, frame))
        assert_empty(client)

    @pytest.mark.parametrize("family", ["gaussian", "poisson"])
    def test_many_empty_partitions_before_the_first_with_rows(
        self, client, frame, family, monkeypatch
    ):
        def make(number, part):
            return part[:0] if number < 40 else part.assign(stars=part["stars"].round().abs())

        compute, nbytes, asked, kept = Session.compute, Session.nbytes, [], []

        def counted(self, tasks):
            asked.append(len(tasks))
            return compute(self, tasks)

        def looked_at(self, futures):
            kept.append(len(self._futures))
            return nbytes(self, futures)

        monkeypatch.setattr(Session, "compute", counted)
        monkeypatch.setattr(Session, "nbytes", looked_at)
        columns = of_parts(make, frame, 60)
        known = {"family": family, "random_effects": ["g"]}
        known["e_step"] = "auto" if family == "gaussian" else "laplace"
        model, whole = fit(columns, **known), columns.compute()
        # Rows and what begins by them, and then all partitions.
        if family == "gaussian":
            # The first four have been asked with all others before.
            assert asked == [31, 2, 16, 94, 30]
            # Sums, of two groups and of 28 partitions; the rows have gone.
            assert kept == [1 + 30]
            local = MixedEffectsRegressor(**{**MODEL, **known}).fit(whole, whole["stars"])
            assert_same(model.to_local(), local, whole)
        else:
            assert asked == [2, 16, 102, 60]
        assert_empty(client)

    @pytest.mark.parametrize("shuffled", [False, True])
    def test_partitions_are_read_once(self, client, frame, tmp_path, shuffled):
        def make(number, part):
            with open(tmp_path / "reads", "a") as file:
                file.write(f"{number}\n")
            return part[:0] if number == 0 else part

        columns = of_parts(make, frame, 20)
        # Then the first partition needs all that were read.
        fit(columns.shuffle("g", shuffle_method="tasks") if shuffled else columns)
        reads = (tmp_path / "reads").read_text().split()
        assert sorted(map(int, reads)) == list(range(20))


def test_an_interruption_leaves_no_tasks(client, frame):
    def make(number, part):
        time.sleep(0.3)
        return part

    columns = of_parts(make, frame, 40)
    model = DaskMixedEffectsRegressor(**MODEL)
    before = vars(model).copy()
    # A shell has what it starts in the background ignore the signal.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(columns, columns["stars"])
        timer.join()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert vars(model) == before
    assert_empty(client)
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0
