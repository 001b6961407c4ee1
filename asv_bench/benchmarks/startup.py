"""From the start of a process to the first Jacobian, with compiled code in the cache."""

from .common import check, random_network

FIRST_JACOBIAN = """
import numpy as np
import fastjac
net = fastjac.Network([(np.ones((8, 32)), np.ones(32)), (np.ones((32, 4)), np.ones(4))])
net.value_and_jacobian(np.ones(8))
"""


class Startup:
    def setup(self):
        net, x = random_network("8-32-4", "float64")
        check(net.value_and_jacobian(x), net.layers, x)

    def timeraw_import(self):
        return "import fastjac"

    def timeraw_import_after_numba(self):
        return "import fastjac", "import numba"

    def timeraw_first_jacobian(self):
        return FIRST_JACOBIAN
