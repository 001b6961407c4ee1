"""The ways to a Jacobian that `fastjac compare` measures, one module for each library."""
