"""The script that MLflow's pod runs first makes the bucket of the bundled S3 server, and finds it the next time."""

import runpy

import pytest
from tests.helm.chart import CHART

pytest.importorskip("boto3", reason="the S3 client of the server image is not installed")
servers = pytest.importorskip("moto.server", reason="no S3 server to speak to: pip install 'moto[s3,server]'")


def test_bucket_is_made_once_and_found_again(monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    script = runpy.run_path(str(CHART / "files" / "create_bucket.py"))
    server = servers.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for _ in range(2):
            script["main"]("qwenops", f"http://{host}:{port}")
    finally:
        server.stop()
    assert capsys.readouterr().out == "bucket qwenops is there\n" * 2
