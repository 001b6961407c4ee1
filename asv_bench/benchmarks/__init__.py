"""Benchmarks of fastjac for asv: a module for each subject."""
