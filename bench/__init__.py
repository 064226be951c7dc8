"""Measures: ratios of interleaved runs, never bare times."""
