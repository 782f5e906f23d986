"""The Python program in a model's answer: out of its wrapping, without what only shows how it is used.

Chat models wrap code in fences of many spellings, in lists and quotations, in several blocks, beside shell commands and
example sessions; base models continue the prompt. Blocks are found by a CommonMark parser, and of what parses, the
definitions that the wanted names need are kept, as EvalPlus' sanitiser does. That sanitiser itself is not used: its
distribution requires twelve packages that nothing else here needs, `datasets` and three vendors' clients among them.
"""

import ast
import re
import symtable
import warnings
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt

_PYTHON = re.compile(r"[\s{.]*(?:i?python|py)(?:[\d.\s:,}].*)?", re.IGNORECASE)
_THOUGHTS = re.compile(r"^.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_TAGS = re.compile(
    r"^[ \t]*(?:\[/?(?:PYTHON|CODE|ANSWER|SOLUTION|BEGIN)\]|</?(?:code|pre|python|answer)>)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_END = "[DONE]"
_GLUED_FENCE = re.compile(r"(?<=[A-Za-z:!?])[ \t]*(```|~~~)(?=[ \t]*(?:python|py)\w*[ \t]*\n)", re.IGNORECASE)
_BLOCKS = {"fence", "code_block"}
# House choice: lines, and places in them, that are searched for code outside of any fence.
_LONGEST_SEARCH = 200
_MOST_STARTS = 20


def find_program(response: str, names: Sequence[str], prefix: str = "") -> str:
    """The program of a response, ready to run: it defines `names` where the response does.

    Args:
        response: A model's raw answer.
        names: Functions and classes that are wanted of it; none takes the whole program.
        prefix: The code that the model was asked to continue; what the answer does not define anew is taken from it.

    Returns:
        Source text. The response itself, cut at its end mark, when nothing in it parses.
    """
    text = _plain(response)
    for code in _candidates(text):
        if _defines(code, names):
            return _needed(f"{prefix}\n{code}" if parses(prefix) else code, names)
    if prefix:
        for code in (text, *_blocks(text)):
            for body in (_body(code), _indent(code)):
                if _continues(prefix, body):
                    return prefix + body
        return prefix + _body(text)
    return next(_candidates(text), text)


def defined_names(source: str) -> set[str]:
    """Names that the top level of `source` binds; none when it does not parse."""
    tree = _parse(source)
    return {name for node in tree.body for name in _binds_and_uses(node)[0]} if tree else set()


def parses(code: str) -> bool:
    """Whether a text is Python, and not empty."""
    return bool(code.strip()) and _parse(code) is not None


def _plain(response: str) -> str:
    text = response.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").replace("\u200b", "")
    text = _TAGS.sub("\n", _THOUGHTS.sub("", text)).split(_END)[0]
    return _GLUED_FENCE.sub(r"\n\n\1", text)


def _candidates(text: str) -> Iterator[str]:
    """Programs the text may mean, the likeliest first; all parse."""
    found = [block for block in _blocks(text) if parses(block)]
    yield from filter(parses, ["\n".join(found)])
    yield from reversed(found)
    yield from _stretches(text)


def _blocks(text: str) -> list[str]:
    """Blocks that are Python, in order; those of another language only when there is no other."""
    tokens = [token for token in MarkdownIt("commonmark").parse(text) if token.type in _BLOCKS]
    ours = [token for token in tokens if not token.info.strip() or _PYTHON.fullmatch(token.info.strip())]
    return [token.content for token in ours or tokens]


def _stretches(text: str) -> Iterator[str]:
    """The longest run of lines that is Python from every line that opens a definition or an import."""
    lines = text.split("\n")[:_LONGEST_SEARCH]
    starts = [i for i, line in enumerate(lines) if re.match(r"(?:def|class|async|import|from|@)\s*\w", line)]
    for start in starts[:_MOST_STARTS]:
        for end in range(len(lines), start, -1):
            if parses(code := "\n".join(lines[start:end])):
                yield code
                break


def _needed(code: str, names: Sequence[str]) -> str:
    """The definitions, imports and settings that `names` need, in their order; everything when nothing is asked for."""
    tree = _parse(code)
    if tree is None or not names:
        return code
    found = [(node, *_binds_and_uses(node)) for node in tree.body]
    wanted = [*names, *(used for node, _, uses in found if _is_setting(node) for used in uses)]
    reached = set[str]()
    while wanted:
        name = wanted.pop()
        if name not in reached:
            reached.add(name)
            wanted += [used for _, binds, uses in found if name in binds for used in uses]
    return "\n".join(ast.unparse(node) for node, binds, _ in found if binds & reached or _is_setting(node))


def _is_setting(node: ast.stmt) -> bool:
    """Whether a statement counts though nothing refers to it: `from x import *`, calls such as `random.seed(0)`."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "__future__" or any(alias.name == "*" for alias in node.names)
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    return isinstance(node.value.func, ast.Attribute) and node.value.func.attr.startswith(("set", "seed"))


def _binds_and_uses(node: ast.stmt) -> tuple[set[str], set[str]]:
    """Global names that a statement at the top level makes or changes, and those it reads, however deep inside."""
    if isinstance(node, ast.If) and "__name__" in {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}:
        return set(), set()
    try:
        tables = [symtable.symtable(ast.unparse(node), "<answer>", "exec")]
    except SyntaxError:  # it parses but cannot run, such as a return outside a function
        return set(), set()
    top = tables[0].get_symbols()
    binds = {s.get_name() for s in top if s.is_assigned() or s.is_imported() or s.is_namespace()}
    uses = {s.get_name() for s in top if s.is_referenced()}
    for table in tables:
        tables += table.get_children()
        uses |= {s.get_name() for s in table.get_symbols() if s.is_global()}
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        binds |= {root for part in ast.walk(node) for root in _changes(part)}
    return binds, uses


def _changes(part: ast.AST) -> set[str]:
    """Names whose objects a statement changes in place: `memo[0] = 1`, `primes.append(2)`, `getcontext().prec = 9`."""
    if isinstance(part, ast.Assign | ast.AugAssign):
        places = part.targets if isinstance(part, ast.Assign) else [part.target]
    elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
        places = [part.value.func] if isinstance(part.value.func, ast.Attribute) else []
        places = [place for place in places if place.attr not in ("exit", "main")]
    else:
        return set()
    inner = [place for place in places if isinstance(place, ast.Attribute | ast.Subscript)]
    return {name.id for place in inner for name in ast.walk(place.value) if isinstance(name, ast.Name)}


def _defines(code: str, names: Sequence[str]) -> bool:
    bound = defined_names(code)
    return bool(bound) and bound >= set(names)


def _continues(prefix: str, body: str) -> bool:
    """Whether `body` goes on inside the last function of `prefix`."""
    before, after = _parse(prefix), _parse(prefix + body)
    return after is not None and bool(body.strip()) and (before is None or len(after.body) == len(before.body))


def _body(code: str) -> str:
    """The lines up to the first one that leaves the function being continued."""
    kept: list[str] = []
    for line in code.split("\n"):
        if line.strip() and not line.startswith((" ", "\t")) and kept:
            break
        kept.append(line)
    return "\n".join(kept)


def _indent(code: str) -> str:
    return "\n".join(f"    {line}" if line.strip() else line for line in code.split("\n"))


def _parse(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
