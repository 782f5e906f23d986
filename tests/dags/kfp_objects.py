"""Object stores as Kubeflow's launcher sees them: which URIs it takes and what it copies, with its own refusals.

The rules are those of Kubeflow Pipelines 2.17.0, file by file: `backend/src/v2/objectstore/config.go` (URIs, pipeline
root), `backend/src/v2/objectstore/object_store.go` (copies), `backend/src/v2/component/launcher_v2.go`
(`LocalPathForURI`).
"""

import re
from dataclasses import dataclass
from pathlib import Path

_BUCKET = re.compile(r"(^[a-z][a-z0-9]+:///?)([^/?]+)(/[^?]*)?(\?.+)?$")
_SCHEMES = ("gs://", "s3://", "minio://", "mem://")
# Schemes whose URIs have a local path, and where it lies in a pod.
MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}

Buckets = dict[str, dict[str, bytes]]


class LauncherError(Exception):
    """The launcher ends a step as failed."""


@dataclass(frozen=True)
class Bucket:
    """A bucket, or the part of one below a pipeline root: `Config` of config.go."""

    scheme: str
    name: str
    prefix: str = ""

    @classmethod
    def of_root(cls, root: str) -> "Bucket":
        """`ParseBucketPathToConfig`: the bucket of a pipeline root, with its path as prefix."""
        scheme, name, path = _parse(root, "pipeline root")
        prefix = path.removeprefix("/")
        return cls(scheme, name, prefix and prefix.rstrip("/") + "/")

    @classmethod
    def of_artifact(cls, uri: str) -> "Bucket":
        """`ParseBucketConfigForArtifactURI`: the whole bucket that a URI lies in."""
        scheme, name, _ = _parse(uri, "uri")
        return cls(scheme, name)

    @property
    def prefixed(self) -> str:
        """`PrefixedBucket`."""
        return self.scheme + f"{self.name}/{self.prefix}".rstrip("/")

    def key(self, uri: str) -> str:
        """`KeyFromURI`: the object's key in the whole bucket."""
        if not uri.startswith(self.prefixed):
            raise LauncherError(f'URI "{uri}" does not have expected bucket prefix "{self.prefixed}"')
        key = uri.removeprefix(self.prefixed).lstrip("/")
        if not key:
            raise LauncherError(f'URI "{uri}" has empty key given prefixed bucket "{self.prefixed}"')
        return self.prefix + key


def upload(buckets: Buckets, bucket: Bucket, local: Path, key: str) -> None:
    """`UploadBlob`: a file, or every file below a folder; FileNotFoundError where there is nothing."""
    if not local.is_dir():
        buckets.setdefault(bucket.scheme + bucket.name, {})[key] = local.read_bytes()
        return
    for path in local.iterdir():
        upload(buckets, bucket, path, f"{key}/{path.name}")


def download(buckets: Buckets, bucket: Bucket, local: Path, key: str) -> None:
    """`DownloadBlob`: what lies at a key or below it; nothing is no error."""
    for name, data in buckets.get(bucket.scheme + bucket.name, {}).items():
        if name == key or name.startswith(key.rstrip("/") + "/"):
            if ".." in name.split("/"):
                raise LauncherError(f"path traversal detected: blob key \"{name}\" contains '..' component")
            path = local / name.removeprefix(key).lstrip("/") if name != key else local
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def local_path(uri: str, mount: Path) -> Path | None:
    """`LocalPathForURI`, below `mount` and not below `/`; None where the URI's scheme is none of the launcher's."""
    for scheme, place in MOUNTS.items():
        if uri.startswith(scheme):
            return mount / place.strip("/") / uri.removeprefix(scheme)
    return None


def _parse(text: str, what: str) -> tuple[str, str, str]:
    found = _BUCKET.search(text)
    if found is None:
        raise LauncherError(f'parse bucket config failed: unrecognized {what} format: "{text}"')
    if found[1] not in _SCHEMES:
        raise LauncherError(f'parse bucket config failed: unsupported Cloud bucket: "{text}"')
    return found[1], found[2], found[3] or ""
