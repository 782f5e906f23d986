"""The top-level definitions of a module and what each of them names, read from its syntax tree.

Comments, docstrings and the descriptions of config fields do not count. Neither do annotations of functions: an object
whose class is named nowhere else was made by code that is reached anyway. Blocks for type checkers and for scripts do
not run on import and are left out.
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

WHOLE = "*"
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SCOPES = (*_DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# `phrases.json`, `expectations/pages.json`, `qwenops.generation.factory`.
_PLACE = re.compile(r"[\w-]+([./][\w-]+)+")
_NOT_ON_IMPORT = ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Definition:
    """A function, a class, an assignment, or a statement that acts on import.

    Attributes:
        digest: SHA-256 of its syntax tree, shortened.
        uses: What it names: `module:dotted.name`, `module:` for the module itself, `library:` for one outside.
        places: Its string literals that look like the name of a file or of a module.
    """

    digest: str
    uses: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """One module.

    Attributes:
        definitions: Name to what is bound to it at the top level.
        bound: Name to what an import binds to it, written as a use.
        loads: Modules of the same package that are imported with it; `module:` where all its names are.
        effects: Statements that may change something elsewhere when the module is imported.
    """

    definitions: Mapping[str, Definition]
    bound: Mapping[str, str] = field(default_factory=dict[str, str])
    loads: tuple[str, ...] = ()
    effects: tuple[Definition, ...] = ()


def read_module(text: str, name: str, *, is_package: bool = False) -> Module:
    """Read one module.

    Args:
        text: Its source.
        name: Its dotted name.
        is_package: Whether it is a package's `__init__`.

    Raises:
        SyntaxError: it is no Python of this version.
    """
    reader = _Reader(name, is_package)
    tree = _Stripped().visit(ast.parse(text))
    statements = list(_running(tree.body))
    for statement in statements:
        reader.bound |= reader.bindings(statement)
    statements = [each for each in statements if not isinstance(each, ast.Import | ast.ImportFrom)]
    reader.own = {own for statement in statements for own in _names_of(statement)}
    found: dict[str, list[Definition]] = {}
    effects: list[Definition] = []
    for statement in statements:
        definition = reader.define(statement)
        for own in _names_of(statement):
            found.setdefault(own, []).append(definition)
        if reader.acts(statement):
            effects.append(definition)
    definitions = {own: _merged(parts) for own, parts in found.items()}
    return Module(definitions, reader.bound, tuple(sorted(reader.loads)), tuple(effects))


def digest_of(*parts: str | bytes) -> str:
    """SHA-256 over `parts`, shortened to 64 bits in hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


class _Reader:
    """What the statements of one module stand on: its own names and those of its imports."""

    def __init__(self, name: str, is_package: bool) -> None:
        self._name, self._top = name, name.split(".")[0]
        self._package = name.split(".") if is_package else name.split(".")[:-1]
        self.own: set[str] = set()
        self.bound: dict[str, str] = {}
        self.loads: set[str] = set()

    def bindings(self, statement: ast.stmt, *, loads: bool = True) -> dict[str, str]:
        """What the imports in a statement bind; the modules they load are noted, but for those in functions."""
        bound: dict[str, str] = {}
        loaded: set[str] = set()
        for node in _walk(statement, into_scopes=not loads):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound[alias.asname or alias.name.split(".")[0]] = self._use(
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
                    loaded.add(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = self._absolute(node)
                for alias in node.names:
                    if alias.name == WHOLE:
                        loaded.add(f"{module}:")
                    else:
                        bound[alias.asname or alias.name] = self._use(module, alias.name)
                        loaded |= {module, f"{module}.{alias.name}"}
        if loads:
            self.loads |= {name for name in loaded if self._is_inside(name)}
        return bound

    def define(self, statement: ast.stmt) -> Definition:
        """What a statement says and names."""
        local = self.bindings(statement, loads=False)
        eye = _Eye()
        eye.visit(statement)
        uses = {self._resolved(dotted, local) for dotted in eye.names}
        if local:
            heads = {dotted.split(".")[0] for dotted in eye.names}
            uses |= {target for alias, target in local.items() if alias not in heads}
        # What a star import binds cannot be seen: any of it may be meant.
        uses |= {module for module in self.loads if module.endswith(":")}
        return Definition(digest_of(ast.dump(statement)), tuple(sorted(uses - {""})), tuple(sorted(eye.places)))

    def acts(self, statement: ast.stmt) -> bool:
        """Whether a statement may change something elsewhere: all do, but for plain definitions and assignments."""
        if isinstance(statement, _DEFINITIONS):
            callees = [part.func if isinstance(part, ast.Call) else part for part in statement.decorator_list]
            heads = [_dotted(callee).split(".")[0] for callee in callees]
            return any(head in self.own or self._is_inside(self.bound.get(head, "")) for head in heads)
        plain = isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign)
        return not plain or _names_of(statement) in ([], ["_"])

    def _resolved(self, dotted: str, local: Mapping[str, str]) -> str:
        """The use that a dotted name stands for; empty for a builtin or a local variable."""
        head, _, rest = dotted.partition(".")
        target = local.get(head, "" if head in self.own else self.bound.get(head, ""))
        if target:
            separator = "" if not rest or target.endswith(":") else "."
            return f"{target}{separator}{rest}" if self._is_inside(target) else target
        return f"{self._name}:{head}" if head in self.own else ""

    def _is_inside(self, target: str) -> bool:
        return target.partition(":")[0].split(".")[0] == self._top

    def _absolute(self, node: ast.ImportFrom) -> str:
        above = self._package[: len(self._package) - node.level + 1] if node.level else []
        return ".".join([*above, *filter(None, [node.module])])

    def _use(self, module: str, name: str = "") -> str:
        top = module.split(".")[0]
        return f"{module}:{name}" if top == self._top else f"{top}:"


class _Eye(ast.NodeVisitor):
    """Collects the dotted names and the places that stand in a statement."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.places: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if dotted := _dotted(node):
            self.names.add(dotted)
        else:
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and _PLACE.fullmatch(node.value):
            self.places.add(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults), *node.body):
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef


class _Stripped(ast.NodeTransformer):
    """Takes out what only people read."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return self.generic_visit(node)


def _running(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) in _NOT_ON_IMPORT:
            yield from _running(statement.orelse)
        else:
            yield statement


def _names_of(statement: ast.stmt) -> list[str]:
    """The names a statement binds at the top level of its module, but for imports."""
    if isinstance(statement, _DEFINITIONS):
        return [statement.name]
    names: list[str] = []
    for node in _walk(statement, into_scopes=False):
        if isinstance(node, _DEFINITIONS):
            names.append(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    return names


def _walk(node: ast.AST, *, into_scopes: bool) -> Iterator[ast.AST]:
    """`node` and all below it; what has a scope of its own is yielded and entered only where wanted."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        if into_scopes or not isinstance(node, _SCOPES):
            waiting += ast.iter_child_nodes(node)


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute of a name; empty for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := _dotted(node.value)):
        return f"{inner}.{node.attr}"
    return ""


def _merged(parts: list[Definition]) -> Definition:
    """One definition of a name that several statements bind."""
    if len(parts) == 1:
        return parts[0]
    uses = {use for part in parts for use in part.uses}
    places = {place for part in parts for place in part.places}
    return Definition(digest_of(*(part.digest for part in parts)), tuple(sorted(uses)), tuple(sorted(places)))
