"""Right programs whose results are hard to carry over a border, and a test that each passes."""

HONEST = [
    ("def f(x):\n    x.append(1)", "x = [0]; f(x); assert x == [0, 1]"),
    ("def f(x):\n    x['b'] = {1, 2}", "x = {}; f(x); assert x == {'b': {2, 1}}"),
    ("def f(x):\n    yield from range(x)", "assert list(f(3)) == [0, 1, 2]"),
    (
        "def f():\n    n = 0\n    while True:\n        yield n\n        n += 1",
        "g = f(); assert [next(g), next(g)] == [0, 1]",
    ),
    (
        "def f(x):\n    raise ValueError('no')",
        "try:\n    f(1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'",
    ),
    ("def f(x):\n    return {}[x]", "try:\n    f(1)\n    assert False\nexcept KeyError:\n    pass"),
    (
        "class f:\n    def __init__(self, x):\n        self.x = x\n    def twice(self):\n        return 2 * self.x",
        "assert f(3).twice() == 6 and f(3).x == 3",
    ),
    ("class f:\n    _line, _reference = 1, 2", "x = f(); assert (x._line, x._reference) == (1, 2)"),
    (
        "class f:\n    def __init__(self, x):\n        self.x = x\ndef g(all):\n    return sum(i.x for i in all)",
        "assert g([f(1), f(2)]) == 3",
    ),
    (
        "def f(x):\n    return (1, 2.0, 'a', None, True, b'x', 3 + 4j, [frozenset([1])], {1: (2,)})",
        "assert f(0) == (1, 2.0, 'a', None, True, b'x', 3 + 4j, [frozenset([1])], {1: (2,)})",
    ),
    (
        "def f(x):\n    return [type(i).__name__ for i in x]",
        "assert f([1, 1.0, True, (1,), {1}, '1']) == ['int', 'float', 'bool', 'tuple', 'set', 'str']",
    ),
    (
        "def f(x):\n    return float(x), 10 ** 5000 + 1",
        "a, b = f('inf'); assert a == float('inf') and b == 10 ** 5000 + 1",
    ),
    (
        "from collections import Counter, deque, OrderedDict\ndef f(x):\n    return Counter(x), deque(x), OrderedDict(a=1)",
        "from collections import deque; assert f('aab') == ({'a': 2, 'b': 1}, deque('aab'), {'a': 1})",
    ),
    (
        "from decimal import Decimal\nfrom fractions import Fraction\nfrom datetime import date, timedelta\ndef f():\n    return Decimal('0.1'), Fraction(1, 3), date(2024, 2, 29) + timedelta(1)",
        "from datetime import date; a, b, c = f(); assert str(a) == '0.1' and b * 3 == 1 and c == date(2024, 3, 1)",
    ),
    ("def f(x, *, key=1, **more):\n    return x + key + more['z']", "assert f(1, key=2, z=3) == 6"),
    ("def f(x):\n    return lambda y: x + y", "assert f(1)(2) == 3"),
    ("import re\ndef f(x):\n    return re.match('a+', x)", "assert f('aab').group() == 'aa' and f('b') is None"),
    (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f():\n    return P(1)",
        "assert str(f()) == 'P(x=1)'",
    ),
    ("x = 7\ndef f():\n    return input()", "assert x == 7"),
    ("def f():\n    open('mine', 'w').write('x')\n    return open('mine').read()", "assert f() == 'x'"),
    (
        "import threading\ndef f():\n    r = []\n    t = threading.Thread(target=r.append, args=(1,)); t.start(); t.join()\n    return r",
        "assert f() == [1]",
    ),
    (
        "import ssl, sqlite3, zlib, hashlib, bz2, lzma, asyncio, random, statistics\ndef f():\n    return hashlib.sha256(b'').hexdigest()[:4]",
        "assert f() == 'e3b0'",
    ),
]
