"""Models of Dask collections; a package, whose tests share what its conftest.py begins and ends."""
