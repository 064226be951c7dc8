"""Ratios measured in one run, interleaved; never bare absolute times."""
