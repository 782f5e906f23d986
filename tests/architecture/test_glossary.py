"""The glossary in components/README.md: every term once, in a module that is there."""

import importlib.util
import re
from pathlib import Path

GLOSSARY = (Path(__file__).parents[2] / "components" / "README.md").read_text().partition("## Glossary")[2]
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `([\w.]+)` \| [^|]+ \|$", GLOSSARY, re.MULTILINE)


def test_terms_stand_once_and_their_modules_speak_of_them():
    terms = [term for term, _ in ROWS]
    assert len(terms) == len(set(terms)) > 20
    for term, module in ROWS:
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin, f"{term}: there is no {module}"
        text = Path(spec.origin).read_text().lower().replace("_", " ")
        assert all(word[:5] in text for word in term.lower().split()), f"{term} does not stand in {module}"
