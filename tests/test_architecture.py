"""The floors of the house: who may import whom, what must start without torch, and no option that nobody reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FLOORS = {
    "errors": 0, "spec": 0, "episode": 0, "env": 0, "gripper": 0, "stats": 0,
    "batch": 1, "agent": 1,
    "data": 2, "nets": 2,
    "agents": 3,
    "run": 4, "envs": 4, "robot": 4,
    "cli": 5, "commands": 5, "__init__": 5,
}  # fmt: skip
APART = {"data", "nets", "agents", "run", "envs", "robot"}  # on one floor, these see only themselves
LIGHT = (
    "errors",
    "spec",
    "episode",
    "env",
    "gripper",
    "stats",
    "envs",
    "robot",
    "data.check",
    "data.convert",
    "data.formats",
    "data.record",
    "run.recorder",
    "cli",
)


def modules() -> dict[str, ast.Module]:
    """Every module of the package, by dotted name; a package goes by its own name."""
    return {_name(path): _tree(path) for path in sorted((SOURCE / "lapwing").rglob("*.py"))}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def statements(node: ast.AST, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run: not those for the type checker; those inside functions only if `lazy`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for branch in child.orelse:
                yield from statements(branch, lazy)
        elif lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(child, lazy)


def imports(name: str, tree: ast.Module, lazy: bool = True) -> set[str]:
    """Dotted names of what a module imports: our modules exactly, foreign ones by their first part."""
    found: set[str] = set()
    for statement in statements(tree, lazy):
        if isinstance(statement, ast.Import):
            found |= {_resolve(alias.name) for alias in statement.names}
        else:
            assert statement.level == 0, f"{name}: relative import in line {statement.lineno}; write it in full"
            found |= {_resolve(f"{statement.module}.{alias.name}") for alias in statement.names}
    return found - {"lapwing.__version__"}  # a constant, for all floors


def _resolve(dotted: str) -> str:
    parts = dotted.split(".")
    if parts[0] != "lapwing":
        return parts[0]
    if dotted == "lapwing.__version__":
        return dotted
    for length in range(len(parts), 0, -1):
        path = SOURCE.joinpath(*parts[:length])
        if path.is_dir() or path.with_suffix(".py").is_file():
            return ".".join(parts[:length])
    raise AssertionError(f"{dotted}: no such module")


def place(name: str) -> str:
    """The first part below `lapwing`: a module or package of `FLOORS`."""
    return name.split(".")[1] if "." in name else "__init__"


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "lapwing"}


def forbidden(name: str, imported: str) -> str | None:
    """Why `name` may not import `imported`; None where it may."""
    here, there = place(name), place(imported)
    if FLOORS[there] > FLOORS[here]:
        return f"floor {FLOORS[here]} sees floor {FLOORS[there]}"
    if here != there and FLOORS[here] == FLOORS[there] and here in APART:
        return f"{here} and {there} share a floor and stand apart"
    if here == "agents" and there == "data":
        return "an agent sees batches, never data"
    if here in ("envs", "robot") and there != here and FLOORS[there] > 0:
        return "worlds and robots see the ground alone"
    return None


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_floors_below(name: str) -> None:
    assert place(name) in FLOORS, f"{name}: give it a floor in this file"
    wrong = {imported: why for imported in ours(imports(name, modules()[name])) if (why := forbidden(name, imported))}
    assert not wrong


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("lapwing.data.dataset", "lapwing.nets.vision"),
        ("lapwing.nets.vision", "lapwing.data.dataset"),
        ("lapwing.agents.lapo", "lapwing.data.dataset"),
        ("lapwing.envs.toy", "lapwing.batch"),
        ("lapwing.envs.toy", "lapwing.run.train"),
        ("lapwing.robot.sync", "lapwing.data.record"),
        ("lapwing.spec", "lapwing.batch"),
        ("lapwing.run.train", "lapwing.cli"),
    ],
)
def test_the_rules_refuse_what_they_are_for(name: str, imported: str) -> None:
    assert forbidden(name, imported)


def test_no_import_cycles() -> None:
    graph = {name: ours(imports(name, tree)) - {name} for name, tree in modules().items()}
    assert cycle_in(graph) is None


def test_a_cycle_is_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def cycle_in(graph: dict[str, set[str]]) -> list[str] | None:
    """One circle of imports, first module repeated at the end; None where there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for following in sorted(graph[name]):
            if found := walk(following, [*path, name]):
                return found
        done.add(name)
        return None

    return next((found for name in sorted(graph) if (found := walk(name, []))), None)


def loaded_with(name: str) -> set[str]:
    """All that comes along when a module is imported, its parent packages included, before anything is called."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in reached:
            continue
        reached.add(current)
        if current in modules():
            parents = {current.rsplit(".", depth)[0] for depth in range(1, current.count(".") + 1)}
            waiting += parents | imports(current, modules()[current], lazy=False)
    return reached


@pytest.mark.parametrize(
    "name", [name for name in sorted(modules()) if name.removeprefix("lapwing.").startswith(LIGHT)]
)
def test_light_modules_start_without_torch(name: str) -> None:
    assert not loaded_with(name) & {"torch", "torchvision"}


@pytest.mark.parametrize("name", LIGHT)
def test_what_is_called_light_is_there(name: str) -> None:
    assert f"lapwing.{name}" in modules()


@pytest.mark.parametrize("name", ["run.actors", "run.ray_actors", "run.learned_reward"])
def test_actors_start_without_torchvision(name: str) -> None:
    """It doubles the time that a process takes to begin, and serves those alone who build a ResNet."""
    assert "torchvision" not in loaded_with(f"lapwing.{name}")


def test_loading_torch_is_noticed() -> None:
    assert "torch" in loaded_with("lapwing.agent")


def options() -> list[tuple[str, str, str]]:
    """(module, class, field) of every dataclass that a user can set."""
    return [
        (name, node.name, field.target.id)
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Options"))
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]


def fields_read(tree: ast.Module, cls: str) -> set[str]:
    """Attributes read off a `cls`: by its own methods, or off a name annotated with it, config or options."""
    nodes = list(ast.walk(tree))
    if not any(isinstance(node, ast.Name | ast.ClassDef) and _identifier(node) == cls for node in nodes):
        return set()
    holders = {"config", "options"} | {
        node.arg if isinstance(node, ast.arg) else ast.unparse(node.target).removeprefix("self.").lstrip("_")
        for node in nodes
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation and cls in ast.unparse(node.annotation)
    }
    own = {
        id(inner) for node in nodes if isinstance(node, ast.ClassDef) and node.name == cls for inner in ast.walk(node)
    }
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and ((last := _identifier(node.value).lstrip("_")) in holders or (last == "self" and id(node) in own))
    }


def _identifier(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.ClassDef(name=name):
            return name
    return ""


def test_every_option_is_read_by_a_module_that_names_its_class() -> None:
    dead = [
        f"{cls}.{field}"
        for _, cls, field in options()
        if not any(field in fields_read(tree, cls) for tree in modules().values())
    ]
    assert not dead, f"options that nobody reads: {dead}; use them or remove them"


def test_a_dead_option_is_noticed() -> None:
    source = """
class TinyConfig:
    used: int = 1
    held: int = 2
    derived: int = 3
    dead: int = 4
    def twice(self):
        return 2 * self.derived
class Agent:
    dead: int
    def __init__(self, config: TinyConfig, tiny: TinyConfig):
        self._tiny = tiny
        print(config.used, self.dead)
    def act(self):
        return self._tiny.held
"""
    assert fields_read(ast.parse(source), "TinyConfig") == {"used", "held", "derived"}
