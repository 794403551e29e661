"""Arrays to estimates: fit.py is the entry, and algorithms/ where to read on."""
