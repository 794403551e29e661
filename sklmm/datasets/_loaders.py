"""Loaders of the data sets: a table of them, what they all do, and one documented function each."""

import re
from importlib import resources
from inspect import getdoc
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils import Bunch


class Source(NamedTuple):
    """A file, its number of rows, and its columns: the features and then the target.

    `rename` leads from the file's names to these; a `real` target is float64, whatever the file
    says.
    """

    filename: str
    n_rows: int
    columns: str
    rename: dict = {}
    real: bool = False


SOURCES = {
    "insteval": Source(
        "InstEval.csv.gz",
        73421,
        "students instructors departments service studage lectage ratings",
        {"s": "students", "d": "instructors", "dept": "departments", "y": "ratings"},
        real=True,
    ),
    "sleepstudy": Source("sleepstudy.csv.gz", 180, "Days Subject Reaction"),
    "pastes": Source("Pastes.csv.gz", 60, "batch cask sample strength"),
    "dyestuff": Source("Dyestuff.csv.gz", 30, "Batch Yield", real=True),
    "dyestuff2": Source("Dyestuff2.csv.gz", 30, "Batch Yield", real=True),
    "toenail": Source("toenail.csv.gz", 1908, "patientID treatment time visit outcome"),
    "cbpp": Source("cbpp.csv.gz", 56, "herd size period incidence"),
    "epil2": Source(
        "epil2.csv.gz", 236, "subject period trt base age V4 lbase lage Visit Base Age y"
    ),
    "wine": Source("wine.csv.gz", 72, "judge temp contact bottle rating"),
}

#: What all loaders' docstrings say of how they are called; `own` are parameters of one of them.
SHARED = """Parameters
----------
{own}return_X_y : bool, default=False
    Return ``(data, target)`` instead of a Bunch.
as_frame : bool, default=False
    Return pandas objects instead of arrays, in which strings are the codes 0, 1, ... of their
    labels in sorted order.

Returns
-------
data : Bunch
    ``data`` : {{ndarray, DataFrame}} of shape ({n}, {p}); ``target`` : {{ndarray, Series}} of shape
    ({n},); ``frame`` : DataFrame of shape ({n}, {q}), only with ``as_frame=True``;
    ``feature_names`` and ``target_names`` : list of str, the latter the labels of a target of
    strings; ``categories`` : dict from a string column to its labels in the order of their codes;
    ``DESCR`` : str; ``filename`` : str.
(data, target) : tuple, if ``return_X_y`` is True"""
CALL_SECTIONS = ("Parameters", "Returns", "Raises", "Examples")


def documented(loader):
    """Add the sections that all loaders share to a loader's docstring."""
    description, *sections = _sections(loader)
    source, own = SOURCES[loader.__name__.removeprefix("load_")], ""
    if sections and sections[0].startswith("Parameters"):
        own = sections.pop(0).split("\n", 2)[2] + "\n"
    q = len(source.columns.split())
    shared = SHARED.format(own=own, n=source.n_rows, p=q - 1, q=q)
    loader.__doc__ = "\n\n".join([description, shared, *sections])
    return loader


def _sections(loader):
    """A loader's docstring by its sections; empty under ``python -OO``."""
    return re.split(r"\n\n(?=[^\n]+\n-{3,}\n)", getdoc(loader) or "")


def _load(loader, return_X_y, as_frame, name=None):
    """What a loader returns, from its data set's file, or that of another `name`."""
    source = SOURCES[name or loader.__name__.removeprefix("load_")]
    path = resources.files(__package__) / "data" / source.filename
    *feature_names, target = columns = source.columns.split()
    with path.open("rb") as stream:
        frame = pd.read_csv(stream, compression="gzip").rename(columns=source.rename)[columns]
    if source.real:
        frame[target] = frame[target].astype(np.float64)
    codes, categories = _encoded(frame)
    if as_frame:
        data, y = frame[feature_names], frame[target]
    else:
        data, y = codes[feature_names].to_numpy(np.float64), codes[target].to_numpy()
    if return_X_y:
        return data, y
    told = [part for part in _sections(loader) if not part.startswith(CALL_SECTIONS)]
    return Bunch(
        data=data,
        target=y,
        frame=frame if as_frame else None,
        feature_names=feature_names,
        target_names=list(categories.get(target, [target])),
        categories=categories,
        DESCR="\n\n".join(told),
        filename=str(path),
    )


def _encoded(frame):
    """The frame with codes in sorted order for its strings, and the labels of each such column."""
    codes, categories = frame.copy(), {}
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            codes[name], labels = pd.factorize(frame[name], sort=True)
            categories[name] = np.asarray(labels, dtype=object)
    return codes, categories


@documented
def load_insteval(*, return_X_y=False, as_frame=False):
    """Load lecture ratings by the students of ETH Zurich (regression, three crossed factors).

    73,421 ratings by 2,972 students of lectures by 1,128 instructors, given in 14 departments. The
    labels are those of the R data: instructors run up to 2,160 and departments up to 15, with gaps.
    The survey looked for the best liked lecturer; the data were anonymised and slightly simplified
    before they were published.

    ===========  =========================================================================
    students     who rated: 2,972 levels, 1 to 2972
    instructors  who gave the lecture: 1,128 levels within 1 to 2160
    departments  of the lecture, a random code: 14 levels within 1 to 15
    service      1 when the lecture was held for another department than the instructor's own
    studage      semesters that the student had been enrolled: 2, 4, 6 or 8
    lectage      how many semesters ago the lecture took place: 1 to 6
    ratings      the target, 1 (poor) to 5 (very good)
    ===========  =========================================================================

    Source: ``InstEval`` in the R package lme4 1.1-31, licensed under the GPL, version 2 or later.

    References
    ----------
    .. [1] Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects
       models using lme4. Journal of Statistical Software, 67(1), 1-48.

    Examples
    --------
    >>> from sklmm.datasets import load_insteval
    >>> X, y = load_insteval(return_X_y=True, as_frame=True)
    >>> X.shape
    (73421, 6)
    >>> X[["students", "instructors", "departments"]].nunique().tolist()
    [2972, 1128, 14]
    """
    return _load(load_insteval, return_X_y, as_frame)


@documented
def load_sleepstudy(*, return_X_y=False, as_frame=False):
    """Load reaction times under sleep deprivation (regression, random intercepts and slopes).

    18 subjects, 10 days each: the mean reaction time of a series of tests a day. Day 0 follows a
    normal night; from then on the subjects were allowed three hours of sleep a night.

    ========  ============================================
    Days      of sleep deprivation: 0 to 9
    Subject   18 levels within 308 to 372
    Reaction  the target, mean reaction time in milliseconds
    ========  ============================================

    Source: ``sleepstudy`` in the R package lme4 1.1-31, licensed under the GPL, version 2 or later.

    References
    ----------
    .. [1] Belenky, G. et al. (2003). Patterns of performance degradation and restoration during
       sleep restriction and subsequent recovery: a sleep dose-response study. Journal of Sleep
       Research, 12(1), 1-12.

    Examples
    --------
    >>> from sklmm.datasets import load_sleepstudy
    >>> load_sleepstudy(as_frame=True).frame.head(3)
       Days  Subject  Reaction
    0     0      308  249.5600
    1     1      308  258.7047
    2     2      308  250.8006
    """
    return _load(load_sleepstudy, return_X_y, as_frame)


@documented
def load_pastes(*, return_X_y=False, as_frame=False):
    """Load the strength of a chemical paste by batch and cask (regression, nested factors).

    Three casks were sampled from each of ten delivery batches, and each sample was assayed twice.
    Cask "a" of batch "A" has nothing to do with cask "a" of batch "B": casks are nested in batches,
    and ``sample`` names each of the 30 casks uniquely.

    ========  =============================================
    batch     10 levels, "A" to "J"
    cask      3 levels within each batch, "a" to "c"
    sample    30 levels, "A:a" to "J:c": batch and cask
    strength  the target; its unit was not published
    ========  =============================================

    Source: ``Pastes`` in the R package lme4 1.1-31, licensed under the GPL, version 2 or later.

    References
    ----------
    .. [1] Davies, O. L. and Goldsmith, P. L. (eds.) (1972). Statistical Methods in Research and
       Production, 4th edition, section 6.5. Oliver and Boyd.

    Examples
    --------
    >>> from sklmm.datasets import load_pastes
    >>> pastes = load_pastes()
    >>> pastes.data[:3]
    array([[0., 0., 0.],
           [0., 0., 0.],
           [0., 1., 1.]])
    >>> pastes.categories["sample"][1]
    'A:b'
    """
    return _load(load_pastes, return_X_y, as_frame)


@documented
def load_dyestuff(*, version=1, return_X_y=False, as_frame=False):
    """Load the yield of dyestuff by batch (regression, one balanced factor).

    Five preparations of dyestuff from each of six batches of an intermediate product. Version 2
    was made up with batches that vary less than preparations do, so that the maximum likelihood
    estimate of the variance between batches is exactly zero: a test of singular fits.

    =====  ============================================================
    Batch  6 levels, "A" to "F"
    Yield  the target, in grams of standard colour (no unit in version 2)
    =====  ============================================================

    Source: ``Dyestuff`` and ``Dyestuff2`` in the R package lme4 1.1-31, licensed under the GPL,
    version 2 or later.

    Parameters
    ----------
    version : {1, 2}, default=1
        1 for the experiment (``Dyestuff``), 2 for the made-up data (``Dyestuff2``).

    Raises
    ------
    ValueError
        If ``version`` is neither 1 nor 2.

    References
    ----------
    .. [1] Davies, O. L. and Goldsmith, P. L. (eds.) (1972). Statistical Methods in Research and
       Production, 4th edition, section 6.4. Oliver and Boyd.
    .. [2] Box, G. E. P. and Tiao, G. C. (1973). Bayesian Inference in Statistical Analysis, section
       5.1.2. Addison-Wesley.

    Examples
    --------
    >>> from sklmm.datasets import load_dyestuff
    >>> float(load_dyestuff().target.mean())
    1527.5
    """
    if version not in (1, 2):
        raise ValueError(
            f"version={version!r} of the dyestuff data does not exist: use version=1 for Dyestuff "
            "or version=2 for Dyestuff2."
        )
    return _load(load_dyestuff, return_X_y, as_frame, "dyestuff2" if version == 2 else None)


@documented
def load_toenail(*, return_X_y=False, as_frame=False):
    """Load a trial of two treatments of toenail infection (classification, random intercepts).

    294 patients were seen at up to seven visits, planned for weeks 0, 4, 8, 12, 24, 36 and 48. Each
    time the separation of the nail plate from the nail bed was judged. Patients differ so much
    that the Laplace approximation is visibly wrong here, which makes these data a standard test.

    =========  ==============================================================================
    patientID  294 levels within 1 to 383
    treatment  "itraconazole" (200 mg a day) or "terbinafine" (250 mg a day)
    time       of the actual visit, in months
    visit      number of the visit: 1 to 7
    outcome    the target, "moderate or severe" (408 rows) or "none or mild" (1,500 rows)
    =========  ==============================================================================

    Notes
    -----
    "none or mild" is the class with code 1, as it comes last in sorted order. Published analyses
    model "moderate or severe" instead; fit ``y == "moderate or severe"`` to get their signs.

    Source: ``toenail`` in the R package HSAUR3 1.0-13, licensed under the GPL, version 2.

    References
    ----------
    .. [1] De Backer, M. et al. (1998). Twelve weeks of continuous oral therapy for toenail
       onychomycosis caused by dermatophytes: a double-blind comparative trial of terbinafine
       250 mg/day versus itraconazole 200 mg/day. Journal of the American Academy of Dermatology,
       38(5), S57-S63.

    Examples
    --------
    >>> from sklmm.datasets import load_toenail
    >>> X, y = load_toenail(return_X_y=True, as_frame=True)
    >>> y.value_counts().to_dict()
    {'none or mild': 1500, 'moderate or severe': 408}
    >>> load_toenail().target_names
    ['moderate or severe', 'none or mild']
    """
    return _load(load_toenail, return_X_y, as_frame)


@documented
def load_cbpp(*, return_X_y=False, as_frame=False):
    """Load new cases of bovine pleuropneumonia in 15 herds (binomial counts, random intercepts).

    Zebu cattle of 15 newly infected herds in Ethiopia were tested every quarter of a year, up to
    four times. The target counts the new cases among the ``size`` animals of the row's herd.

    =========  ==========================================================
    herd       15 levels, 1 to 15
    size       animals in the herd when the period began: the trials
    period     quarter, 1 to 4; a factor in published models, not a slope
    incidence  the target, new cases in the period: the successes
    =========  ==========================================================

    Source: ``cbpp`` in the R package lme4 1.1-31, licensed under the GPL, version 2 or later.

    References
    ----------
    .. [1] Lesnoff, M. et al. (2004). Within-herd spread of contagious bovine pleuropneumonia in
       Ethiopian highlands. Preventive Veterinary Medicine, 64(1), 27-40.

    Examples
    --------
    >>> from sklmm.datasets import load_cbpp
    >>> frame = load_cbpp(as_frame=True).frame
    >>> frame[["incidence", "size"]].sum().tolist()
    [99, 842]
    """
    return _load(load_cbpp, return_X_y, as_frame)


@documented
def load_epil2(*, return_X_y=False, as_frame=False):
    """Load seizure counts of epileptics on two treatments (counts, random intercepts or slopes).

    59 patients, 28 on placebo and 31 on progabide, recorded their seizures for eight weeks before
    the treatment and for four periods of two weeks under it. Counts vary more than a Poisson
    distribution allows, even given the patient; patient 49 had 102 seizures in two weeks.

    =======  ==================================================================
    subject  59 levels, 1 to 59
    period   of two weeks: 1 to 4
    trt      treatment, "placebo" or "progabide"
    base     seizures in the eight weeks before the treatment
    age      in years
    V4       1 in the last period, otherwise 0
    lbase    log(base), centred
    lage     log(age), centred
    Visit    (period - 2.5) / 5
    Base     log(base / 4), the logarithm of the seizures in two weeks before
    Age      log(age)
    y        the target, seizures in the period
    =======  ==================================================================

    Notes
    -----
    Baseline, age and time come in two or three forms each: give the model one of each, as
    ``fixed_effects=["Base", "Age", "Visit"]`` does.

    Source: ``epil2`` in the R package glmmTMB 1.1.5, licensed under the GNU AGPL, version 3. It
    adds ``Visit``, ``Base`` and ``Age`` to ``epil`` in the R package MASS, licensed under the GPL,
    version 2 or 3.

    References
    ----------
    .. [1] Thall, P. F. and Vail, S. C. (1990). Some covariance models for longitudinal count data
       with overdispersion. Biometrics, 46(3), 657-671.
    .. [2] Booth, J. G., Casella, G., Friedl, H. and Hobert, J. P. (2003). Negative binomial
       loglinear mixed models. Statistical Modelling, 3(3), 179-191.

    Examples
    --------
    >>> from sklmm.datasets import load_epil2
    >>> X, y = load_epil2(return_X_y=True, as_frame=True)
    >>> y.groupby(X["trt"]).sum().to_dict()
    {'placebo': 961, 'progabide': 987}
    """
    return _load(load_epil2, return_X_y, as_frame)


@documented
def load_wine(*, return_X_y=False, as_frame=False):
    """Load the bitterness of wine as nine judges rated it (ordered classes, random intercepts).

    A factorial experiment: the grapes were crushed cold or warm, with or without contact between
    juice and skins. Each judge tasted two bottles from each of the four conditions.

    =======  =====================================================================
    judge    9 levels, 1 to 9
    temp     when the grapes were crushed, "cold" or "warm"
    contact  between juice and skins, "no" or "yes"
    bottle   8 levels, 1 to 8; two for each condition
    rating   the target, 1 (least bitter) to 5 (most bitter): classes with an order
    =======  =====================================================================

    Notes
    -----
    R's column ``response``, the score from 0 to 100 that ``rating`` groups by twenties, is left
    out: it would give the target away.

    Source: ``wine`` in the R package ordinal 2022.11-16, licensed under the GPL, version 2 or
    later.

    References
    ----------
    .. [1] Randall, J. H. (1989). The analysis of sensory data by generalised linear model.
       Biometrical Journal, 31(7), 781-793.
    .. [2] Tutz, G. and Hennevogl, W. (1996). Random effects in ordinal regression models.
       Computational Statistics & Data Analysis, 22(5), 537-557.

    Examples
    --------
    >>> from sklmm.datasets import load_wine
    >>> X, y = load_wine(return_X_y=True, as_frame=True)
    >>> y.value_counts().sort_index().tolist()
    [5, 22, 26, 12, 7]
    """
    return _load(load_wine, return_X_y, as_frame)
