"""A recipe is decoded once per process: text becomes a value at one door, and the value is handed on."""

import os
from collections import Counter

from tests.dags.conftest import qwenops

# Python runs this in every process of the command; a fork writes to a file of its own.
COUNTS = """
import os
from pydantic import BaseModel
decode = BaseModel.model_validate_json.__func__
def counted(cls, *given, **named):
    with open(os.path.join(os.environ["DECODES"], str(os.getpid())), "a") as file:
        file.write(cls.__name__ + "\\n")
    return decode(cls, *given, **named)
BaseModel.model_validate_json = classmethod(counted)
"""


def test_each_process_of_a_run_decodes_the_recipe_or_its_slice_once(tmp_path):
    for folder in ("site", "decodes"):
        (tmp_path / folder).mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(COUNTS)
    python = os.pathsep.join(filter(None, (str(tmp_path / "site"), os.environ.get("PYTHONPATH"))))
    counting = {"PYTHONPATH": python, "DECODES": str(tmp_path / "decodes")}
    result = qwenops("run", "smoke", "--until", "collect", "--out", tmp_path / "run", **counting)
    assert result.returncode == 0, result.stderr
    counts = [dict(Counter(path.read_text().split())) for path in (tmp_path / "decodes").iterdir()]
    assert all(set(count.values()) == {1} for count in counts)
    # The command, and the step that cuts the recipe. The stage's step, and the processes of the stage server that it
    # and the scheduler asked: how many depends on who came first.
    of_recipe = [count for count in counts if "Recipe" in count]
    of_stage = [set(count) for count in counts if "Recipe" not in count]
    assert of_recipe == [{"Recipe": 1}] * 2
    assert of_stage
    for names in of_stage:
        assert "Slice[CollectConfig]" in names <= {"Reference", "Slice[CollectConfig]"}
