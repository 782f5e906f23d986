"""Programs nobody has read: right, wrong, endless, greedy and hostile ones, and verdicts made outside of them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.platform.honest_programs import HONEST
from tests.platform.hostile_host import judge_hostile
from tests.platform.hostile_programs import ESCAPES, FORGERIES, GREED

from qwenops.errors import PlatformError
from qwenops.platform.sandbox import confinement
from qwenops.platform.sandbox.judging import Program, Sandbox, Verdict

ROOT = Path(__file__).parents[2]
needs_fence = pytest.mark.skipif(
    bool(confinement.why_no_bubblewrap()), reason=f"nothing is confined here: {confinement.why_no_bubblewrap()}"
)
NOBODY = 65534
# Not run without a fence: they would leave something on this machine.
HARMFUL = (
    *("fork three hundred times", "leave a daemon", "change a setting of the kernel", "write beside the interpreter"),
    *("trace a process of the host", "make a user namespace", "write into shared memory"),
)


def judge(code: str, *tests: str, names: tuple[str, ...] = ("f",), prelude: str = "", seconds: float = 20.0) -> Verdict:
    return Sandbox.open("bubblewrap", seconds).judge(Program(code, tests, names, prelude))


@needs_fence
def test_each_test_has_its_own_result():
    tests = ("assert f(2) == 4", "assert f(2) == 5", "f(None)", "assert f(2.5) == 5.0")
    verdict = judge("def f(x):\n    return 2 * x", *tests)
    assert verdict.results == ("passed", "failed", "raised", "passed")
    assert not verdict.passed
    assert judge("def f(x):\n    return 2 * x", tests[0]).passed
    assert not judge("def f(x):\n    return 2 * x").passed, "nothing was tested"


@needs_fence
@pytest.mark.parametrize("code", ["assert False", "def f(:", "import os; os._exit(0)", "raise SystemExit", "1/0", ""])
def test_a_program_that_does_not_reach_its_end_fails(code):
    assert not judge(code, "assert f(1) == 1").passed


@needs_fence
@pytest.mark.parametrize(
    ("code", "test"),
    HONEST,
)
def test_what_a_right_program_returns_arrives(code: str, test: str):
    assert judge(code, test, names=("f", "g", "x")).results == ("passed",)


@needs_fence
def test_a_helper_of_the_tests_is_not_the_programs():
    code, prelude = "def check(a, b):\n    return True\ndef f(x):\n    return 0", "def check(a, b):\n    return a == b"
    assert not judge(code, "assert check(f(1), 1)", prelude=prelude).passed


@needs_fence
def test_an_endless_program_is_killed_in_time():
    began = time.monotonic()
    verdict = judge("def f():\n    while True: pass", "assert True", "f()", seconds=0.5)
    assert verdict.results == ("timeout", "timeout")
    assert time.monotonic() - began < 60


@pytest.fixture(scope="module")
def confined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    return judge_hostile(folder, "bubblewrap", ("escapes", "greed", "forgeries")), folder


@needs_fence
@pytest.mark.parametrize(("kind", "name"), [*(("escapes", n) for n in ESCAPES), *(("greed", n) for n in GREED)])
def test_a_hostile_program_does_not_get_out(confined, kind, name):
    assert confined[0][kind][name][0] != "passed"


@needs_fence
@pytest.mark.parametrize("name", FORGERIES)
def test_no_verdict_can_be_forged(confined, name):
    results = confined[0]["forgeries"][name]
    assert len(results) == 4
    assert "passed" not in results


@needs_fence
def test_nothing_is_left_behind(confined):
    assert sorted(path.name for path in confined[1].iterdir()) == ["database", "extra", "extra2", "secret", "socket"]
    assert (confined[1] / "secret").read_text() == "secret"
    assert (confined[1] / "secret").stat().st_mode & 0o777 == 0o600
    mine = {entry for entry in os.listdir("/dev/shm") if entry.startswith(f"qwenops-{os.getpid()}")}
    assert not mine


def test_the_same_programs_get_out_where_nothing_confines_them(tmp_path: Path):
    results = judge_hostile(tmp_path, "none_at_own_risk", ("escapes",), HARMFUL)["escapes"]
    held = {name for name, result in results.items() if result != ("passed",)}
    # The environment of a child is its own even there; some file systems have no attributes.
    assert held <= {"read its own environment", "read the parent's environment", "set an attribute"}


@needs_fence
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_nothing_gets_out_under_an_ordinary_user_either(tmp_path_factory):
    python = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    if not python.exists():
        pytest.skip("no interpreter that an ordinary user can read")
    folder = Path(f"/tmp/qwenops-nobody-{os.getpid()}")
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    paths = [str(ROOT), str(ROOT / "components"), *(path for path in sys.path if "site-packages" in path)]
    command = [python, Path(__file__).with_name("hostile_host.py"), folder, "bubblewrap", "escapes", "forgeries"]
    environment = {"PYTHONPATH": ":".join(paths), "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command,
        env=environment,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    left = sorted(path.name for path in folder.iterdir())
    subprocess.run(["rm", "-r", folder], check=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    got_out = {name for kind in results.values() for name, result in kind.items() if "passed" in result}
    assert not got_out
    assert left == ["database", "extra", "extra2", "secret", "socket"]


def test_without_a_fence_nothing_runs_unless_the_recipe_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(confinement, "_executable", lambda: "/usr/bin/false")
    confinement.why_no_bubblewrap.cache_clear()
    confinement._bubblewrap.cache_clear()
    try:
        with pytest.raises(PlatformError, match="none_at_own_risk"):
            Sandbox.open("bubblewrap", 5.0)
        court = Sandbox.open("none_at_own_risk", 20.0)
        assert court.judge(Program("def f(x):\n    return x", ("assert f(1) == 1",), ("f",))).passed
        assert not court.judge(Program(FORGERIES["equal to everything"], ("assert f(1) == 1",), ("f",))).passed
    finally:
        confinement.why_no_bubblewrap.cache_clear()
        confinement._bubblewrap.cache_clear()
