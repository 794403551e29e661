"""Columns to frozen arrays: the term grammar and the design of a mixed model."""

from sklmm.design.design import Block, Design, DesignSpec, take_columns
from sklmm.design.terms import RandomEffect, parse_term, resolve_terms

__all__ = [
    "Block",
    "Design",
    "DesignSpec",
    "RandomEffect",
    "parse_term",
    "resolve_terms",
    "take_columns",
]
