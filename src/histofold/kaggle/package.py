"""Which modules a program needs: found by reading their imports, so that an export holds these and no others."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import histofold

ROOT = Path(histofold.__file__).resolve().parent
NAME = "histofold"
MODULE = re.compile(r"histofold(\.\w+)+(:\w+)?")
"""Registries name modules as texts: `histofold.models.unet:UNet`."""

LEFT_OUT = ("histofold.sample", "histofold.metrics")
"""Imported inside of functions that an export never calls: the embedded sample, scores against a truth."""


def modules_of(entries: Sequence[str]) -> dict[str, Path]:
    """Modules of this package that `entries` import, at their top or in functions, by name; `entries` included."""
    found: dict[str, Path] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        path = _file(module)
        if path is None or module in found or module.startswith(LEFT_OUT):
            continue
        found[module] = path
        parents = module.split(".")[:-1]
        waiting += [".".join(parents[: count + 1]) for count in range(len(parents))]
        waiting += _named(ast.parse(path.read_text(encoding="utf-8")))
    return dict(sorted(found.items()))


def copy_modules(entries: Sequence[str], folder: Path) -> list[str]:
    """Copy the modules that `entries` need into `folder`; gives their names."""
    modules = modules_of(entries)
    for path in modules.values():
        target = folder / NAME / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return list(modules)


def _file(module: str) -> Path | None:
    """The file of a module, None when it is a class, a function or somebody else's."""
    head, *rest = module.split(".")
    if head != NAME:
        return None
    place = ROOT.joinpath(*rest)
    for path in (place / "__init__.py", place.with_suffix(".py") if rest else place / "__init__.py"):
        if path.is_file():
            return path
    return None


def _named(node: ast.AST) -> Iterator[str]:
    """What may be a module's name anywhere below `node`, but for what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str) and MODULE.fullmatch(child.value):
            yield child.value.partition(":")[0]
        yield from _named(child)
