"""Loaders of continuous responses: data that Gaussian models are shown on."""

import numpy as np

from sklmm.datasets._read import load_csv


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

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return pandas objects, with integer columns, instead of arrays.

    Returns
    -------
    data : Bunch
        ``data`` : {ndarray, DataFrame} of shape (73421, 6); ``target`` : {ndarray, Series} of shape
        (73421,), float64; ``frame`` : DataFrame of shape (73421, 7), only with ``as_frame=True``;
        ``feature_names`` and ``target_names`` : list of str; ``categories`` : dict, empty;
        ``DESCR`` : str; ``filename`` : str.
    (data, target) : tuple, if ``return_X_y`` is True

    Notes
    -----
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
    return load_csv(
        load_insteval,
        "InstEval.csv.gz",
        ["students", "instructors", "departments", "service", "studage", "lectage", "ratings"],
        rename={"s": "students", "d": "instructors", "dept": "departments", "y": "ratings"},
        target_dtype=np.float64,
        return_X_y=return_X_y,
        as_frame=as_frame,
    )


def load_sleepstudy(*, return_X_y=False, as_frame=False):
    """Load reaction times under sleep deprivation (regression, random intercepts and slopes).

    18 subjects, 10 days each: the mean reaction time of a series of tests a day. Day 0 follows a
    normal night; from then on the subjects were allowed three hours of sleep a night.

    ========  ============================================
    Days      of sleep deprivation: 0 to 9
    Subject   18 levels within 308 to 372
    Reaction  the target, mean reaction time in milliseconds
    ========  ============================================

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return pandas objects, with integer columns, instead of arrays.

    Returns
    -------
    data : Bunch
        ``data`` : {ndarray, DataFrame} of shape (180, 2); ``target`` : {ndarray, Series} of shape
        (180,), float64; ``frame`` : DataFrame of shape (180, 3), only with ``as_frame=True``;
        ``feature_names`` and ``target_names`` : list of str; ``categories`` : dict, empty;
        ``DESCR`` : str; ``filename`` : str.
    (data, target) : tuple, if ``return_X_y`` is True

    Notes
    -----
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
    return load_csv(
        load_sleepstudy,
        "sleepstudy.csv.gz",
        ["Days", "Subject", "Reaction"],
        return_X_y=return_X_y,
        as_frame=as_frame,
    )


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

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return pandas objects, the factors as strings, instead of arrays, in which they are codes.

    Returns
    -------
    data : Bunch
        ``data`` : {ndarray, DataFrame} of shape (60, 3); ``target`` : {ndarray, Series} of shape
        (60,), float64; ``frame`` : DataFrame of shape (60, 4), only with ``as_frame=True``;
        ``feature_names`` and ``target_names`` : list of str; ``categories`` : dict from a string
        column to its labels in the order of their codes; ``DESCR`` : str; ``filename`` : str.
    (data, target) : tuple, if ``return_X_y`` is True

    Notes
    -----
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
    return load_csv(
        load_pastes,
        "Pastes.csv.gz",
        ["batch", "cask", "sample", "strength"],
        return_X_y=return_X_y,
        as_frame=as_frame,
    )


def load_dyestuff(*, version=1, return_X_y=False, as_frame=False):
    """Load the yield of dyestuff by batch (regression, one balanced factor).

    Five preparations of dyestuff from each of six batches of an intermediate product. Version 2
    was made up with batches that vary less than preparations do, so that the maximum likelihood
    estimate of the variance between batches is exactly zero: a test of singular fits.

    =====  ============================================================
    Batch  6 levels, "A" to "F"
    Yield  the target, in grams of standard colour (no unit in version 2)
    =====  ============================================================

    Parameters
    ----------
    version : {1, 2}, default=1
        1 for the experiment (``Dyestuff``), 2 for the made-up data (``Dyestuff2``).
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return pandas objects, ``Batch`` as strings, instead of arrays, in which it is codes.

    Returns
    -------
    data : Bunch
        ``data`` : {ndarray, DataFrame} of shape (30, 1); ``target`` : {ndarray, Series} of shape
        (30,), float64; ``frame`` : DataFrame of shape (30, 2), only with ``as_frame=True``;
        ``feature_names`` and ``target_names`` : list of str; ``categories`` : dict from a string
        column to its labels in the order of their codes; ``DESCR`` : str; ``filename`` : str.
    (data, target) : tuple, if ``return_X_y`` is True

    Raises
    ------
    ValueError
        If ``version`` is neither 1 nor 2.

    Notes
    -----
    Source: ``Dyestuff`` and ``Dyestuff2`` in the R package lme4 1.1-31, licensed under the GPL,
    version 2 or later.

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
    files = {1: "Dyestuff.csv.gz", 2: "Dyestuff2.csv.gz"}
    if version not in files:
        raise ValueError(
            f"version={version!r} of the dyestuff data does not exist: use version=1 for Dyestuff "
            "or version=2 for Dyestuff2."
        )
    return load_csv(
        load_dyestuff,
        files[version],
        ["Batch", "Yield"],
        target_dtype=np.float64,
        return_X_y=return_X_y,
        as_frame=as_frame,
    )
