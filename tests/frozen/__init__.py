"""The numbers of many models before a change and after it: `python -m tests.frozen --help`."""
