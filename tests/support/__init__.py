"""Networks, oracles and programs that tests share; tests and what they start import it as ``support``."""
