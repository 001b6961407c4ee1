"""Instructions on vectors: the only folder that knows registers and lanes."""
