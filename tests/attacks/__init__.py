"""Attacks on fastjac at scale, from outside: ``python -m attacks.NAME`` in the folder ``tests``."""
