"""Everything that only an accelerator can tell, in one command: `python -m benchmarks.accelerator`."""
