"""The driver of a stage on a Ray cluster: `python -m qwenops.platform.run_stage TOKEN`.

The token is the task as compressed JSON in URL-safe base64: KubeRay splits an entrypoint like a shell and joins
it without quotes, which JSON would not survive. The stage runs exactly as in a step's own process and writes
to the same store; its error family leaves as the exit status and, with the message, in the run's events.
"""

import argparse
import base64
import json
import os
import sys
import traceback
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from qwenops.errors import QwenOpsError
from qwenops.platform.context import RunContext
from qwenops.platform.stage import Published, produce, read_task

# What MLflow's plugin for Kubeflow gives to a step and nothing else knows; secrets come by the pod template.
_PASSED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE")


def write_token(message: Mapping[str, Any], context: RunContext, job: str) -> str:
    """The argument that makes `main` run the task of `message`.

    Args:
        message: Stage, slice text and inputs, as `read_task` reads them.
        context: Where the step runs; the driver connects to its own cluster.
        job: Name of the RayJob; marks the driver's events.
    """
    driver = replace(context, cluster="", stage_server="", ray_address="auto", show_bar="no")
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    facts = {"task": dict(message), "context": asdict(driver), "environment": environment, "job": job}
    packed = zlib.compress(json.dumps(facts, sort_keys=True).encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def run(token: str) -> Published:
    """Run the task of `token`.

    Raises:
        QwenOpsError: what the stage raised.
    """
    facts = json.loads(zlib.decompress(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))
    os.environ.update(facts["environment"])
    context = RunContext(**facts["context"])
    return produce(read_task(facts["task"], context), context, job=facts["job"])


def main() -> None:
    """Run the task of the command line; the exit status is the error family's."""
    parser = argparse.ArgumentParser(description="Run one stage on this Ray cluster.")
    parser.add_argument("token", help="the task, written by the step that created this job")
    try:
        published = run(parser.parse_args().token)
    except QwenOpsError as error:
        traceback.print_exc()
        sys.exit(error.exit_status)
    print(f"published {published.path}", flush=True)


if __name__ == "__main__":
    main()
