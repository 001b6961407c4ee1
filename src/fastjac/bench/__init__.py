"""Measurements: fastjac against its peers and against what the machine allows."""
