"""Every figure of a recipe says where it comes from, and cannot be changed or mistyped."""

import importlib
import re

import pytest
from tests.architecture.places import LIBRARY, STAGES, dotted, stage_name

from qwenops.recipe.config import Config

# A section of the report, or a stated choice with its reason.
_SOURCE = re.compile(r"§\d|house choice: \w", re.IGNORECASE)
# Not part of a recipe's identity: where a run happens, and the tree and envelope that only hold other configs.
_NO_RECIPE = (
    "qwenops.recipe.placement",
    "qwenops.recipe.pods",
    "qwenops.recipe.prices",
    "qwenops.recipe.schema",
    "qwenops.recipe.slice",
    "qwenops.platform.stage.slices",
)


def config_classes() -> list[type[Config]]:
    for path in sorted(LIBRARY.rglob("*.py")):
        if "Config)" in path.read_text(encoding="utf-8"):
            importlib.import_module(dotted(path))
    found, queue = list[type[Config]](), [Config]
    while queue:
        subclasses = queue.pop().__subclasses__()
        found += [c for c in subclasses if c.__module__.startswith("qwenops.") and c.__module__ not in _NO_RECIPE]
        queue += subclasses
    return sorted(found, key=lambda c: (c.__module__, c.__name__))


@pytest.mark.parametrize("config", config_classes(), ids=lambda c: f"{c.__module__}.{c.__name__}")
def test_every_field_has_a_source(config: type[Config]):
    fields = config.model_fields.items()
    assert [name for name, field in fields if not _SOURCE.search(field.description or "")] == []


@pytest.mark.parametrize("config", config_classes(), ids=lambda c: f"{c.__module__}.{c.__name__}")
def test_config_is_a_closed_value(config: type[Config]):
    settings = config.model_config
    assert (settings.get("frozen"), settings.get("strict"), settings.get("extra")) == (True, True, "forbid")
    mutable = [n for n, f in config.model_fields.items() if re.match(r"(list|dict|set)\b", str(f.annotation))]
    assert mutable == []


@pytest.mark.parametrize("folder", STAGES, ids=stage_name)
def test_readme_names_every_field_of_the_config(folder):
    module = importlib.import_module(f"qwenops.{stage_name(folder)}.config")
    config = vars(module)["".join(part.title() for part in folder.name.split("_")) + "Config"]
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert [name for name in config.model_fields if not re.search(rf"`{name}\b", text)] == []
