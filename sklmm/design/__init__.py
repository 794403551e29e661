"""Columns to frozen arrays: the term grammar and the design of a mixed model."""
