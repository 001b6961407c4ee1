"""What the modules of a package import, and which private names of each other they use, by their source."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # Public, and underscored not to be fields.


@dataclass
class Module:
    """What a module imports, wherever in its text, and which private names of other rooms it uses."""

    name: str
    room: str
    tree: ast.Module
    imports: dict[str, int] = field(default_factory=dict)  # Name of a module -> the first line with it.
    inside: dict[str, str] = field(default_factory=dict)  # Name here -> the package's module that it is.
    outside: set[str] = field(default_factory=set)  # Names here that come from other packages.
    borrowed: list[tuple[int, str]] = field(default_factory=list)  # Line, and the use of a private name.


def source_files(folder: Path) -> dict[str, str]:
    """Return the text of every module below a package's folder, by the module's name."""
    texts = {}
    for path in sorted(folder.rglob("*.py")):
        parts = folder.name, *path.relative_to(folder).with_suffix("").parts
        texts[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return texts


def read(sources: dict[str, str]) -> dict[str, Module]:
    """Return all modules of a package, given the text of each.

    A room is a folder of the package, with all in it, or a module beside the folders.
    """
    package = min(sources, key=len)
    modules = {}
    for name, text in sources.items():
        room = name.removeprefix(package).strip(".").partition(".")[0] or package
        modules[name] = Module(name, room, ast.parse(text))
    defined: dict[str, set[str]] = {}
    for module in modules.values():
        names = defined.setdefault(module.room, set())
        for node in ast.walk(module.tree):
            _read_imports(module, node, modules, package)
            names.update(name for name in _definitions(node) if _is_private(name))
    for module in modules.values():
        others = set().union(*(names for room, names in defined.items() if room != module.room))
        for node in ast.walk(module.tree):
            if any(_borrows(module, node, modules, others - defined[module.room])):
                module.borrowed.append((node.lineno, ast.unparse(node)))
    return modules


def _read_imports(module: Module, node: ast.AST, modules: dict[str, Module], package: str) -> None:
    def add(name: str) -> None:
        module.imports.setdefault(name, node.lineno)

    if isinstance(node, ast.Import):
        for name in node.names:
            add(name.name)
            if name.name in modules:
                module.inside[name.asname or name.name] = name.name
            else:
                module.outside.add((name.asname or name.name).partition(".")[0])
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module.name}, line {node.lineno}: a relative import"
        for name in node.names:
            whole = f"{node.module}.{name.name}"
            add(whole if whole in modules else node.module)
            if whole in modules:
                module.inside[name.asname or name.name] = whole
            elif node.module not in modules:
                module.outside.add(name.asname or name.name)
    # What is imported later by its name: a string that is one, or the beginning of an f-string.
    elif isinstance(node, ast.Constant) and node.value in modules.keys() - {package}:
        add(node.value)
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        folder, dot, rest = node.values[0].value.rpartition(".")
        if dot and not rest and folder in modules.keys() - {package}:
            for name in modules:
                if name.startswith(f"{folder}."):
                    add(name)


def _is_private(name: object) -> bool:
    return (
        isinstance(name, str)
        and name.startswith("_")
        and not name.endswith("_")
        and name not in OF_NAMED_TUPLES
    )


def _definitions(node: ast.AST) -> list[object]:
    """Return the names that a piece of source defines: of a module, or of the objects of a class."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr] if ast.unparse(node.value) in ("self", "cls") else []
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":
        return [part.value for part in node.args if isinstance(part, ast.Constant)]
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
        return [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
    return []


def _borrows(module: Module, node: ast.AST, modules: dict[str, Module], others: set[str]) -> list[bool]:
    """Return for each private name in a piece of source whether it is another room's.

    An object's class is unknown here: its attribute is another room's if only other rooms define one of
    that name.
    """

    def elsewhere(name: str | None) -> bool:
        return name in modules and modules[name].room != module.room

    if isinstance(node, ast.ImportFrom):
        return [elsewhere(node.module) and _is_private(name.name) for name in node.names]
    if isinstance(node, ast.Attribute) and _is_private(node.attr):
        owner = ast.unparse(node.value)
        if owner in module.inside:
            return [elsewhere(module.inside[owner])]
        return [node.attr in others and owner.partition(".")[0] not in module.outside]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
        return [isinstance(part, ast.Constant) and part.value in others for part in node.args]
    return []


def circles(modules: dict[str, Module]) -> list[list[str]]:
    """Return each group of modules that import one another, directly or by way of others."""
    reached: dict[str, set[str]] = {}
    for name in modules:
        found, waiting = set(), [name]
        while waiting:
            for target in modules.keys() & modules[waiting.pop()].imports.keys() - found:
                found.add(target)
                waiting.append(target)
        reached[name] = found
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in modules}
    return sorted(sorted(group) for group in groups if group)
