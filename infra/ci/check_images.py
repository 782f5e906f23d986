"""Check built images by running commands in them: who they run as, what they can do, what they hold.

Needs buildah. Writes the bill of materials that each image carries to `--sbom FOLDER`.
"""

import argparse
import json
import subprocess
from pathlib import Path

import build_images
import versions

# What must hold in every image, and in those that Ray pods run.
EVERY = {
    "runs as a user": 'test "$(id -u)" = 1000',
    "has the command line": "qwenops --version",
    "compiles a pipeline": "qwenops compile smoke --placement h200_node -o /tmp/pipeline.yaml",
    "has no package manager cache": 'test ! -d /root/.cache && test -z "$(ls /var/lib/apt/lists 2>/dev/null)"',
    "writes nothing beside its temporary folders": "test ! -w /app && test ! -w /usr",
}
ONE = {
    "server": {
        "has MLflow and its drivers": "python -c 'import boto3, mlflow, psycopg2'",
        "has no torch": "! python -c 'import torch'",
    },
    "data": {},
    "train": {
        "has a CUDA build of torch": "python -c 'import torch; assert torch.version.cuda'",
        "has vLLM": "python -c 'import vllm'",
    },
}
RAY = {
    "answers KubeRay's probes": "command -v wget && command -v bash",
    "starts Ray from a login shell": "bash -lc 'ray --version'",
    "holds every stage": "python -c 'import qwenops.platform.launch.serve_stages'",
}


def checks(name: str) -> dict[str, str]:
    """Return what must hold in one image: a sentence, and the shell command that shows it."""
    return EVERY | ONE[name] | ({} if name == "server" else RAY)


def run(container: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a working container."""
    return subprocess.run(
        ["buildah", "run", container, "--", "sh", "-c", command], check=False, capture_output=True, text=True
    )


def check(name: str, sbom: Path | None) -> list[str]:
    """Return what does not hold in one image."""
    image = f"{build_images.REPOSITORY}/{name}:{build_images.version()}"
    container = subprocess.run(["buildah", "from", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        failed = []
        for sentence, command in checks(name).items():
            done = run(container, command)
            print(f"{'ok' if done.returncode == 0 else 'FAILED':7}{image} {sentence}", flush=True)
            if done.returncode:
                failed.append(f"{image} {sentence}: {command}\n{done.stdout}{done.stderr}")
        if sbom:
            sbom.mkdir(parents=True, exist_ok=True)
            bill = json.loads(run(container, "cat /app/sbom.cdx.json").stdout)
            (sbom / f"{name}.cdx.json").write_text(json.dumps(bill, indent=1), encoding="utf-8")
            print(f"{len(bill['components'])} packages in {sbom / f'{name}.cdx.json'}")
        return failed
    finally:
        subprocess.run(["buildah", "rm", container], check=True, capture_output=True)


def main() -> None:
    """Check the images named on the command line, all of them by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument("--sbom", type=Path, help="folder for the bills of materials")
    options = parser.parse_args()
    failed = [line for name in options.images or versions.read()["images"] for line in check(name, options.sbom)]
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
