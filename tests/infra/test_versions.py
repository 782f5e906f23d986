"""The list of versions is the only one: whatever repeats a version agrees with it."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

import qwenops

ROOT = Path(__file__).parents[2]
VERSIONS = yaml.safe_load((ROOT / "infra" / "versions.yaml").read_text(encoding="utf-8"))
CHART = yaml.safe_load((ROOT / "helm" / "qwenops" / "Chart.yaml").read_text(encoding="utf-8"))
VALUES = yaml.safe_load((ROOT / "helm" / "qwenops" / "values.yaml").read_text(encoding="utf-8"))
CONSTRAINTS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
CONTAINERFILES = {path.name.removesuffix(".Containerfile"): path for path in (ROOT / "infra/images").iterdir()}


def test_packages_are_those_of_the_constraints():
    listed = VERSIONS["packages"]
    assert {name: CONSTRAINTS[name] for name in listed} == listed


def test_python_is_that_of_the_base_and_the_checks():
    assert VERSIONS["bases"]["python"]["tag"].startswith(VERSIONS["python"])
    assert f'pythonVersion = "{VERSIONS["python"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_chart_accepts_the_kubernetes_range_and_ships_this_version():
    assert CHART["kubeVersion"] == f">={VERSIONS['kubernetes']['oldest']}.0-0"
    assert CHART["appVersion"] == qwenops.__version__
    assert CHART["version"] == qwenops.__version__


@pytest.mark.parametrize("service", VERSIONS["services"])
def test_bundled_services_are_those_of_the_list(service):
    assert {key: VALUES["images"][service][key] for key in ("repository", "tag", "digest")} == VERSIONS["services"][
        service
    ]


def test_documents_name_the_operators_versions():
    operators = VERSIONS["operators"]
    text = (ROOT / "infra" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"manifests/kustomize/\S+\?ref=([\d.]+)", text)) == {
        operators["kubeflow-pipelines"]["version"]
    }
    assert f"kuberay/kuberay-operator --version {operators['kuberay']['version']}" in text
    assert f"charts/kueue --version {operators['kueue']['version']}" in text
    assert f"{VERSIONS['kubernetes']['oldest']} to {VERSIONS['kubernetes']['newest']}" in text


def test_a_digest_is_a_digest_or_openly_absent():
    for image in [*VERSIONS["bases"].values(), *VERSIONS["services"].values()]:
        assert re.fullmatch(r"(sha256:[0-9a-f]{64})?", image["digest"])


def test_every_image_has_a_containerfile_and_known_extras():
    assert set(CONTAINERFILES) == set(VERSIONS["images"])
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for image in VERSIONS["images"].values():
        assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in image["extras"])
        assert image["base"] in VERSIONS["bases"]
        assert not image["torch"] or image["torch"] in VERSIONS["torch"]


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_containerfile_takes_every_version_from_the_build(name):
    text = CONTAINERFILES[name].read_text(encoding="utf-8")
    instructions = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in instructions if re.search(r"==\d|:\d+\.\d|@sha256", line)] == []
    assert {line for line in instructions if line.startswith("FROM")} == {
        "FROM ${BASE} AS build",
        "FROM build AS sbom",
        "FROM ${BASE}",
    }


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_image_runs_as_a_numbered_user_and_keeps_no_build_files(name):
    final = CONTAINERFILES[name].read_text(encoding="utf-8").rpartition("FROM ${BASE}")[2]
    assert re.findall(r"^USER (.*)$", final, re.MULTILINE) == ["1000:1000"]
    assert "pip install" not in final
    assert "COPY --from=build /app/venv /app/venv" in final
    assert "COPY --from=sbom /app/sbom.cdx.json" in final
    if "apt-get" in final:
        assert "--no-install-recommends" in final
        assert "rm -rf /var/lib/apt/lists/*" in final
    assert "ADD " not in final


@pytest.mark.parametrize("name", [name for name, image in VERSIONS["images"].items() if image["torch"]])
def test_ray_images_hold_what_kuberay_calls(name):
    text = CONTAINERFILES[name].read_text(encoding="utf-8")
    assert re.search(r"apt-get install .*\bbash\b.*\bwget\b", text)
    assert "/etc/profile.d/" in text
    assert "ray" in VERSIONS["images"][name]["extras"]


def test_image_with_vllm_pins_it_as_the_extra_does_and_keeps_torch_and_transformers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "infra" / "ci"))
    build_images = importlib.import_module("build_images")
    pinned = dict(line.split("==") for line in build_images.pins(["all", "vllm"]).splitlines())
    assert f'vllm = ["vllm=={pinned["vllm"]};' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert {name: pinned[name] for name in VERSIONS["packages"]} == VERSIONS["packages"]
    assert len(pinned) > len(CONSTRAINTS)
    assert "vllm" not in build_images.pins(["all"])
