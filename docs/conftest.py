"""Sphinx's configuration is no test: it needs what only the extra `docs` installs."""

collect_ignore = ["conf.py"]
