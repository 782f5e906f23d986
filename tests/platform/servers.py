"""Servers for tests, on loopback: S3 (moto), PostgreSQL (Debian's), MLflow, and a test's own HTTP handler."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "planted-bucket-key-3141",  # pragma: allowlist secret
    "AWS_DEFAULT_REGION": "us-east-1",
}
# MLflow makes the whole schema first, which takes a minute on a busy machine.
_START_SECONDS = 900
_MOTO = "import sys; from moto.server import main; main(sys.argv[1:])"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, process: subprocess.Popen) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no server at {address}, exit status {process.poll()}") from None
            time.sleep(0.1)
        else:
            return


@contextlib.contextmanager
def serve(handler: type[BaseHTTPRequestHandler], **attributes: object) -> Iterator[str]:
    """Serve `handler` on a free port of loopback; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    for name, value in attributes.items():
        setattr(server, name, value)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server that lives while the block runs."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _MOTO, "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | KEYS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        wait_for(f"{endpoint}/moto-api/", process)
        yield endpoint
    finally:
        process.terminate()
        process.wait()


def postgresql_programs() -> Path | None:
    """Folder of `initdb` and `pg_ctl`, newest version first; None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgresql_server(programs: Path) -> Iterator[str]:
    """SQLAlchemy URI of a PostgreSQL with a database `mlflow`; the server refuses to run as root, so nobody runs it."""
    account = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    folder, port = Path(tempfile.mkdtemp(prefix="qwenops-postgresql-")), free_port()

    def run(*command: str) -> None:
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **identity)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        os.chown(folder, account.pw_uid, account.pw_gid)
        data = folder / "data"
        run(str(programs / "initdb"), "-D", str(data), "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        run(str(programs / "pg_ctl"), "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            run(str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow")
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
        finally:
            run(str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def mlflow_server(database: str, artifacts: str, *, serve: bool = True) -> Iterator[str]:
    """URI of an MLflow tracking server that keeps runs in `database`.

    Artifacts go through it to `artifacts`; with `serve=False` clients write there themselves.
    """
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", database, "--workers", "1"]
    command += ["--serve-artifacts", "--artifacts-destination", artifacts] if serve else []
    command += [] if serve else ["--no-serve-artifacts", "--default-artifact-root", artifacts]
    process = subprocess.Popen(
        command,
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait()
