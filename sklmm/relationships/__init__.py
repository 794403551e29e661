"""Known relationships between the levels of a grouping factor."""

from sklmm.relationships.relationship import Relationship

__all__ = ["Relationship"]
