"""A Dask cluster of two processes with a thread each, which all tests share."""

import dask
import pandas as pd
import pytest
from sklearn.utils.fixes import parse_version

if parse_version(pd.__version__) < parse_version("3"):
    # Else text that is an object in a local table is another type in Dask's.
    dask.config.set({"dataframe.convert-string": False})


# For as long as its processes live they ask one another whether they do.
@pytest.fixture(scope="package")
def client():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def no_client(monkeypatch):
    """Clients that were started are none that is used by default."""
    from distributed.client import _current_client

    monkeypatch.setattr("distributed.client._global_clients", {})
    token = _current_client.set(None)
    yield
    _current_client.reset(token)
