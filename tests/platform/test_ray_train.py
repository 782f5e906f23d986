"""A worker that goes away is the platform's fault, so that a retry is worth trying."""

import os
import signal

import pytest
import ray

from qwenops.errors import PlatformError
from qwenops.platform.context import RunContext
from qwenops.platform.ray_train import launch


def vanish(_config):
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_killed_worker_is_a_platform_error(tmp_path):
    context = RunContext(str(tmp_path), str(tmp_path), str(tmp_path), num_workers=1)
    try:
        with pytest.raises(PlatformError, match="worker 0 of lost was lost"):
            launch(vanish, {}, context, "lost", tmp_path / "train")
    finally:
        ray.shutdown()
