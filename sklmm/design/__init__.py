"""Columns to frozen arrays: the term grammar and the design of a mixed model."""

from sklmm.design.columns import check_magnitude, take_columns
from sklmm.design.design import Block, Design, DesignSpec, check_effects, columns_read
from sklmm.design.formula import (
    formula_parameters,
    is_expression,
    response_columns,
    split_response,
)
from sklmm.design.terms import RandomEffect, parse_term, resolve_terms

__all__ = [
    "Block",
    "Design",
    "DesignSpec",
    "RandomEffect",
    "check_effects",
    "check_magnitude",
    "columns_read",
    "formula_parameters",
    "is_expression",
    "parse_term",
    "resolve_terms",
    "response_columns",
    "split_response",
    "take_columns",
]
