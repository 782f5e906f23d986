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
    # The command, and the step that cuts the recipe; the stage's step, and the process that runs the stage.
    of_slice = {"Reference": 1, "Slice[CollectConfig]": 1}
    assert sorted(counts, key=str) == [{"Recipe": 1}, {"Recipe": 1}, of_slice, of_slice]
