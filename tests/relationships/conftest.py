"""The pedigree and the records of an animal model, as several modules fit it."""

from pathlib import Path

import pandas as pd
import pytest

from sklmm import Relationship

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def relationship():
    return Relationship.from_pedigree(pd.read_csv(DATA / "pedigree.csv"))


@pytest.fixture(scope="module")
def records():
    table = pd.read_csv(DATA / "pedigree_records.csv")
    return table.drop(columns="y"), table["y"]
