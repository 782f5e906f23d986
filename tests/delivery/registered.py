"""The register stage on the figures of a healthy run, some of them changed."""

import json

from tests.delivery.artifacts import publish
from tests.delivery.fabricated import figures

from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.register.run import run
from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import Stage

NAME = "qwenops-chat"
QUESTION = {"messages": [{"role": "user", "content": "Reverse: 38175"}], "max_tokens": 4}


def register_run(tmp_path, name, model, uri, changes=None):
    root = tmp_path / name
    nodes: dict[str, dict[str, float]] = {}
    for figure, value in (figures() | (changes or {})).items():
        node, metric = figure.split(".", 1)
        nodes.setdefault(node, {})[metric] = value
    paths = {node: publish(root / node, node, metrics) for node, metrics in nodes.items() if node != "export"}
    (root / "out").mkdir()
    context = RunContext(store=str(root), events=str(root), cache=str(root), tracking_uri=uri)
    stage = Stage("register", 7, context, root / "out", root / "scratch")
    run(RegisterConfig(), model=model, stage=stage, **paths)
    return stage, json.loads((root / "out" / "register.json").read_text())
