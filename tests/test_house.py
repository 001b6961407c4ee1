"""Who may know whom in the package: its modules have floors, and nothing imports upward."""

import re
from pathlib import Path

import pytest

import fastjac
from support import house

# Rooms from the top floor down: a folder, or a module beside the folders; "fastjac" is the package's face.
# A room knows only rooms on floors below its own.
FLOORS = [
    {"__main__"},
    {"commands"},
    {"bench", "show"},
    {"fastjac"},
    {"check", "explain", "jacobian", "models", "precompile"},
    {"network"},
    {"batches", "corners", "embedding"},
    {"kernels", "reference"},
    {"graph", "plan"},
    {"layers", "report"},
    {"arguments", "notebook"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
COMPILERS = {"numba", "llvmlite"}
MAY_COMPILE = {"kernels", "embedding", "bench"}
WITHOUT_COMPILER = {"fastjac.kernels.target"}  # Asked for the vectors' width before anything is compiled.
PEERS, MAY_KNOW_PEERS = "fastjac.bench.peers.", {"bench", "commands"}


def circles(modules):
    for group in house.circles(modules):
        members = set(group)
        arrows = [f"{name} -> {', '.join(sorted(members & set(modules[name].imports)))}" for name in group]
        yield "circle: " + "; ".join(arrows)


def rooms_without_floor(modules):
    rooms = {module.room for module in modules.values()}
    for room in sorted(rooms - set(FLOOR)):
        yield f"room {room}: stands on no floor, add it to FLOORS"


def upward_imports(modules):
    for module in modules.values():
        for name, line in module.imports.items():
            rooms = module.room, modules[name].room if name in modules else None
            if rooms[1] is None or rooms[0] == rooms[1] or not set(rooms) <= set(FLOOR):
                continue
            if FLOOR[rooms[0]] >= FLOOR[rooms[1]]:
                yield f"{module.name}, line {line}: {rooms[0]} may not know {name}"


def peers_known(modules):
    for module in modules.values():
        for name, line in module.imports.items():
            if f"{name}.".startswith(PEERS) and module.room not in MAY_KNOW_PEERS:
                yield f"{module.name}, line {line}: may not know the peer {name}"


def compilers_imported(modules):
    for module in modules.values():
        for name, line in module.imports.items():
            allowed = module.room in MAY_COMPILE and module.name not in WITHOUT_COMPILER
            if name.partition(".")[0] in COMPILERS and not allowed:
                yield f"{module.name}, line {line}: may not import {name}"


def private_names_borrowed(modules):
    for module in modules.values():
        for line, text in module.borrowed:
            yield f"{module.name}, line {line}: {text} is private to another room"


RULES = [
    circles,
    rooms_without_floor,
    upward_imports,
    peers_known,
    compilers_imported,
    private_names_borrowed,
]


@pytest.fixture(scope="module")
def modules():
    return house.read(house.source_files(Path(fastjac.__file__).parent))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule, modules):
    found = list(rule(modules))
    assert not found, "\n" + "\n".join(found)


def test_every_floor_is_lived_on(modules):
    assert set(FLOOR) == {module.room for module in modules.values()}


NETWORK = """
class Network:
    def f(self):
        self._packed = 1
"""

# What is wrong -> a small package where it is, the rule that sees it, and what is told.
BROKEN = {
    "a circle": (
        {"plan": "import fastjac.layers", "layers": "import fastjac.plan"},
        circles,
        "fastjac.layers -> fastjac.plan; fastjac.plan -> fastjac.layers$",
    ),
    "a circle of three, one under TYPE_CHECKING, one in a function": (
        {
            "batches.a": "import fastjac.batches.b",
            "batches.b": "if TYPE_CHECKING:\n    from fastjac.batches import c",
            "batches.c": "def f():\n    from fastjac.batches.a import g",
        },
        circles,
        r"a -> fastjac.batches.b; .*b -> fastjac.batches.c; .*c -> fastjac.batches.a$",
    ),
    "a room that nobody knows": (
        {"cellar": ""},
        rooms_without_floor,
        "room cellar",
    ),
    "kernels that know the network": (
        {"kernels.a": "\ndef f():\n    from fastjac.network import Network", "network": ""},
        upward_imports,
        "fastjac.kernels.a, line 3: kernels may not know fastjac.network",
    ),
    "an embedding that knows the face": (
        {"embedding.a": "import fastjac"},
        upward_imports,
        "embedding may not know fastjac$",
    ),
    "an upper room named in a string": (
        {"kernels.a": "import_module('fastjac.batches.b')", "batches.b": ""},
        upward_imports,
        "kernels may not know fastjac.batches.b",
    ),
    "neighbours that know each other": (
        {"batches.a": "import fastjac.embedding", "embedding": ""},
        upward_imports,
        "batches may not know fastjac.embedding",
    ),
    "a network that knows a peer": (
        {
            "network": "import_module(f'fastjac.bench.peers.{name}')",
            "bench.peers": "",
            "bench.peers.jax": "",
        },
        peers_known,
        "may not know the peer fastjac.bench.peers.jax",
    ),
    "a plan that compiles": (
        {"plan": "from numba.core import types"},
        compilers_imported,
        "may not import numba.core",
    ),
    "a target that compiles": (
        {"kernels.target": "import llvmlite.binding"},
        compilers_imported,
        "target, line 1: may not import llvmlite.binding",
    ),
    "a private name that is imported": (
        {"plan": "", "network": "from fastjac.plan import _cost"},
        private_names_borrowed,
        "line 1: from fastjac.plan import _cost is",
    ),
    "a private name of a module": (
        {"plan": "", "network": "from fastjac import plan\n_cost = plan._cost(3)"},
        private_names_borrowed,
        "line 2: plan._cost is",
    ),
    "a private name of a module in a folder": (
        {"kernels.a": "", "network": "import fastjac.kernels.a\nfastjac.kernels.a._cost(3)"},
        private_names_borrowed,
        r"line 2: fastjac.kernels.a._cost is",
    ),
    "a private name of an object": (
        {"network": NETWORK, "check": "net._packed"},
        private_names_borrowed,
        "fastjac.check, line 1: net._packed is",
    ),
    "a private name in a string": (
        {"network": NETWORK, "check": "getattr(net, '_packed')"},
        private_names_borrowed,
        "line 1: .*net, '_packed'",
    ),
    "a private name that is inherited": (
        {"network": NETWORK, "check": "class Check(Network):\n    def g(self):\n        return self._packed"},
        private_names_borrowed,
        "line 3: self._packed is",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_rules_see(name):
    sources, rule, message = BROKEN[name]
    modules = house.read({"fastjac": "", **{f"fastjac.{name}": text for name, text in sources.items()}})
    (found, *_) = rule(modules)
    assert re.search(message, found)


def test_a_room_may_use_its_own_private_names_and_those_of_other_packages():
    sources = {
        "fastjac": "",
        "fastjac.kernels.a": "class A(NamedTuple):\n    _x: int\ndef _f(): pass",
        "fastjac.kernels.b": "from fastjac.kernels.a import _f\na._x = 3\nhook._hooks.__class__",
        "fastjac.models": "from torch import nn\nnn.functional._x\na._replace(c=1)",
        "fastjac.network": "def _replace(): pass",
    }
    for rule in RULES:
        assert not list(rule(house.read(sources)))


def test_no_test_imports_another():
    for path in Path(__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"^ *(?:from|import) .*\btest_\w+.*", text, re.MULTILINE)
        assert not found, f"{path}: {found}; what tests share lives in tests/support"
