"""Time and memory beside other systems: `python -m tests.benchmarks --help`."""
