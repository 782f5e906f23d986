"""Small faults put into a program, one at a time: wrong candidates where no model writes any."""

import ast
import copy

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Pow: ast.Mult,
    ast.Mod: ast.Add,
    ast.Gt: ast.Lt,
    ast.Lt: ast.Gt,
    ast.Eq: ast.NotEq,
}
_CALLS = {"max": "min", "sorted": "list", "sum": "len", "set": "list", "range": "list"}


def mutate(source: str) -> list[str]:
    """Every program that differs from `source` by one swapped operator, comparison, function or constant."""
    tree = ast.parse(source)
    mutants: list[str] = []
    for place, node in enumerate(ast.walk(tree)):
        if not _can_change(node):
            continue
        twin = copy.deepcopy(tree)
        _change(next(other for index, other in enumerate(ast.walk(twin)) if index == place))
        mutants.append(ast.unparse(twin))
    return list(dict.fromkeys(mutant for mutant in mutants if mutant != ast.unparse(tree)))


def _can_change(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=bool()):
            return False
        case ast.Constant(value=int() | str()):
            return bool(node.value) or node.value == 0
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            return type(op) in _SWAPS
        case ast.Compare(ops=[op]):
            return type(op) in _SWAPS
        case ast.Call(func=ast.Name(id=name)):
            return name in _CALLS
        case _:
            return False


def _change(node: ast.AST) -> None:
    match node:
        case ast.Constant(value=int(value)):
            node.value = value + 1
        case ast.Constant(value=str(value)):
            node.value = value + value
        case ast.BinOp() | ast.AugAssign():
            node.op = _SWAPS[type(node.op)]()  # type: ignore[assignment]
        case ast.Compare():
            node.ops = [_SWAPS[type(node.ops[0])]()]  # type: ignore[list-item]
        case ast.Call(func=ast.Name() as name):
            name.id = _CALLS[name.id]
