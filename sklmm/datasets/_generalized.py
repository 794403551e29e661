"""Loaders of classes and counts: data that models of other families are shown on."""

from sklmm.datasets._read import load_csv


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

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return pandas objects, ``treatment`` and ``outcome`` as strings, instead of arrays, in which
        both are codes 0 and 1.

    Returns
    -------
    data : Bunch
        ``data`` : {ndarray, DataFrame} of shape (1908, 4); ``target`` : {ndarray of int, Series of
        str} of shape (1908,); ``frame`` : DataFrame of shape (1908, 5), only with
        ``as_frame=True``; ``feature_names`` : list of str; ``target_names`` : list of the two
        outcomes in the order of their codes; ``categories`` : dict from a string column to its
        labels in the order of their codes; ``DESCR`` : str; ``filename`` : str.
    (data, target) : tuple, if ``return_X_y`` is True

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
    return load_csv(
        load_toenail,
        "toenail.csv.gz",
        ["patientID", "treatment", "time", "visit", "outcome"],
        return_X_y=return_X_y,
        as_frame=as_frame,
    )


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

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return pandas objects, with integer columns, instead of arrays.

    Returns
    -------
    data : Bunch
        ``data`` : {ndarray, DataFrame} of shape (56, 3); ``target`` : {ndarray, Series} of shape
        (56,), int64; ``frame`` : DataFrame of shape (56, 4), only with ``as_frame=True``;
        ``feature_names`` and ``target_names`` : list of str; ``categories`` : dict, empty;
        ``DESCR`` : str; ``filename`` : str.
    (data, target) : tuple, if ``return_X_y`` is True

    Notes
    -----
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
    return load_csv(
        load_cbpp,
        "cbpp.csv.gz",
        ["herd", "size", "period", "incidence"],
        return_X_y=return_X_y,
        as_frame=as_frame,
    )


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

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return pandas objects, ``trt`` as strings, instead of arrays, in which it is codes 0 and 1.

    Returns
    -------
    data : Bunch
        ``data`` : {ndarray, DataFrame} of shape (236, 11); ``target`` : {ndarray, Series} of shape
        (236,), int64; ``frame`` : DataFrame of shape (236, 12), only with ``as_frame=True``;
        ``feature_names`` and ``target_names`` : list of str; ``categories`` : dict from a string
        column to its labels in the order of their codes; ``DESCR`` : str; ``filename`` : str.
    (data, target) : tuple, if ``return_X_y`` is True

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
    return load_csv(
        load_epil2,
        "epil2.csv.gz",
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
            "y",
        ],
        return_X_y=return_X_y,
        as_frame=as_frame,
    )


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

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return pandas objects, ``temp`` and ``contact`` as strings, instead of arrays, in which both
        are codes 0 and 1.

    Returns
    -------
    data : Bunch
        ``data`` : {ndarray, DataFrame} of shape (72, 4); ``target`` : {ndarray, Series} of shape
        (72,), int64; ``frame`` : DataFrame of shape (72, 5), only with ``as_frame=True``;
        ``feature_names`` and ``target_names`` : list of str; ``categories`` : dict from a string
        column to its labels in the order of their codes; ``DESCR`` : str; ``filename`` : str.
    (data, target) : tuple, if ``return_X_y`` is True

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
    return load_csv(
        load_wine,
        "wine.csv.gz",
        ["judge", "temp", "contact", "bottle", "rating"],
        return_X_y=return_X_y,
        as_frame=as_frame,
    )
