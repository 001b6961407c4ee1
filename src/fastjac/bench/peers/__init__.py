"""The peers that `fastjac compare` measures, one module for each library."""
