"""The MLflow model registry: versions one after the other through the gate, and the aliases they move.

MLflow moves an alias without looking where it points, so two registrations at once could each compare with the same
champion and the worse one could write last. What it does give out atomically is version numbers. They are used as
tickets: a version is made as `pending`, waits until every earlier one has its verdict, and only then reads the
champion, compares and moves. The guarantee: of versions whose turns take less than `TURN_SECONDS`, each is compared
with the champion that all earlier ones left, whatever the number of processes and machines. A process that dies in
its turn holds the others up for that long once; one that was only asleep finds its ticket void when it wakes up, puts
back what it overwrote and fails. This holds on every store with transactions (SQLite, PostgreSQL, MySQL, behind a
server or not).
"""

import contextlib
import json
import math
import random
import tempfile
import time
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwenops.errors import PlatformError
from qwenops.platform.mlflow.runs import already_there, create_run
from qwenops.platform.mlflow.server import check_reachable, is_server, short_timeouts
from qwenops.platform.mlflow.tracking import MlflowClient, MlflowException

CANDIDATE, CHAMPION = "candidate", "champion"
TURN_SECONDS = 60.0
"""Longest time between the end of the turn before and the verdict; a version that needs more loses its ticket."""
_LOOK_SECONDS = 0.1
_FIGURES, _GATE = "figures", "gate"
_PENDING, _UNFINISHED = "pending", "unfinished"
# Of versions that passed, only those with the first word were champion.
_PASSED, _BEHIND, _FAILED = "passed", "passed, behind the champion", "failed"
# MLflow itself tries three times to take the next version number.
_ATTEMPTS = 8
_ARTIFACTS = "model"


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        number: Version number as the registry shows it.
        figures: The figures it was registered with, for comparison with a later version.
    """

    number: str
    figures: Mapping[str, float]


class RegistrationTurn:
    """One version while it is its turn: nobody else moves an alias of this model meanwhile.

    Attributes:
        version: The version that is being judged.
        champion: What the alias `champion` points at, or None.
    """

    def __init__(self, client: MlflowClient, model_name: str, version: Version) -> None:
        self._client, self._name = client, model_name
        self.version = version
        self.champion = _at_alias(client, model_name)

    def settle(self, *, passed: bool, description: str, leads: bool = True) -> str:
        """Move the aliases as the verdict says, then write description and verdict, once and last.

        Args:
            passed: Whether the gate passed.
            description: For whoever looks at the version.
            leads: Whether a version that passed becomes champion.

        Returns:
            The highest alias of this version.

        Raises:
            PlatformError: the turn took too long, and others went on.
        """
        try:
            self._check()
            self._point(CANDIDATE)
            if passed and leads:
                self._point(CHAMPION)
            self._check()
        except PlatformError:
            self._put_back()
            raise
        self._client.update_model_version(self._name, self.version.number, description)
        verdict = _FAILED if not passed else _PASSED if leads else _BEHIND
        self._client.set_model_version_tag(self._name, self.version.number, _GATE, verdict)
        return CHAMPION if passed and leads else CANDIDATE

    def _point(self, alias: str) -> None:
        self._client.set_registered_model_alias(self._name, alias, self.version.number)

    def _check(self) -> None:
        found = self._client.get_model_version(self._name, self.version.number).tags.get(_GATE)
        if found != _PENDING:
            raise PlatformError(
                f"version {self.version.number} of {self._name} lost its turn",
                expected=f"a verdict within {TURN_SECONDS:.0f} seconds",
                found=f"marked {found} by a later registration",
                action="run the register stage again; it makes a new version",
            )

    def _put_back(self) -> None:
        """Give an alias that this overtaken version took to the newest one that has earned it since."""
        later = [v for v in _versions(self._client, self._name, _PASSED) if v > int(self.version.number)]
        present = _at_alias(self._client, self._name)
        if later and present and present.number == self.version.number:
            self._client.set_registered_model_alias(self._name, CHAMPION, str(max(later)))


def champion(tracking_uri: str, model_name: str) -> Version | None:
    """The version that the alias `champion` points at, or None when there is none yet.

    Raises:
        PlatformError: the registry cannot be read.
    """
    with _speaking_to(tracking_uri):
        return _at_alias(MlflowClient(tracking_uri), model_name)


@contextlib.contextmanager
def registration_turn(
    tracking_uri: str,
    model_name: str,
    source: str,
    *,
    run_id: str,
    figures: Mapping[str, float],
    tags: Mapping[str, str],
    turn_seconds: float = TURN_SECONDS,
) -> Generator[RegistrationTurn]:
    """Make a version of `source`, wait until it is its turn, and give the block the turn.

    Args:
        tracking_uri: MLflow's tracking URI.
        model_name: Registered model; made when missing.
        source: Where the model's files are; from `publish`.
        run_id: The run the version belongs to; empty for none.
        figures: Figures that a later version is compared with; stored as one JSON tag.
        tags: Digests, fingerprint, code version.
        turn_seconds: After this long an earlier version without a verdict is taken for dead.

    Raises:
        PlatformError: the registry cannot be used, or the turn was lost.
    """
    with _speaking_to(tracking_uri):
        client = MlflowClient(tracking_uri)
        _make_model(client, model_name)
        known = {name: value for name, value in figures.items() if math.isfinite(value)}
        labels = {**tags, _FIGURES: json.dumps(known, sort_keys=True, allow_nan=False), _GATE: _PENDING}
        made = Version(_make_version(client, model_name, source, run_id, labels), figures)
        try:
            _wait(client, model_name, int(made.number), turn_seconds)
            yield RegistrationTurn(client, model_name, made)
        except BaseException:
            # Nobody waits for what will have no verdict; the registry may be what went wrong.
            with contextlib.suppress(MlflowException, OSError):
                _void(client, model_name, int(made.number))
            raise


def publish(tracking_uri: str, folder: Path, address: str, run_id: str) -> tuple[str, str]:
    """Where a registered version finds the files of `folder`, a model, and the run it belongs to.

    A folder is named as it is where the store is a file or a database of this machine, an object store's address
    everywhere. A server refuses a folder it does not keep, so the files become artifacts of the run, wherever the
    server keeps those.

    Args:
        tracking_uri: MLflow's tracking URI.
        folder: The model, on this machine.
        address: Where it lies for everybody: the same folder, or an address of an object store.
        run_id: The run the version belongs to; empty for none, and a server is given one.

    Raises:
        PlatformError: the artifacts cannot be written.
    """
    if "://" in address:
        return address, run_id
    if not is_server(tracking_uri):
        return Path(address).resolve().as_uri(), run_id
    with _speaking_to(tracking_uri, uploading=True):
        client = MlflowClient(tracking_uri)
        run_id = run_id or create_run(client, "", "registration")
        client.log_artifacts(run_id, str(folder), _ARTIFACTS)
        return f"{client.get_run(run_id).info.artifact_uri}/{_ARTIFACTS}", run_id


def check_registry(tracking_uri: str, run_id: str = "") -> None:
    """Make a registered model with a version and an alias, and delete it: a server that refuses is found at once.

    Args:
        tracking_uri: MLflow's tracking URI.
        run_id: The run that asks; empty makes one and deletes it.

    Raises:
        PlatformError: the server does not answer, or the registry or its artifacts cannot be written.
    """
    name = f"qwenops-check-{uuid.uuid4().hex[:12]}"
    with _speaking_to(tracking_uri), tempfile.TemporaryDirectory() as place:
        (Path(place) / "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
        client = MlflowClient(tracking_uri)
        source, used = publish(tracking_uri, Path(place), place, run_id)
        client.create_registered_model(name)
        try:
            number = client.create_model_version(name, source, used or None, await_creation_for=0).version
            client.set_registered_model_alias(name, CHAMPION, number)
            client.set_model_version_tag(name, number, _GATE, _UNFINISHED)
        finally:
            client.delete_registered_model(name)
            if used != run_id:
                client.delete_run(used)


def _at_alias(client: MlflowClient, model_name: str) -> Version | None:
    found = client.search_registered_models(filter_string=f"name = '{model_name}'", max_results=1)
    if not found or CHAMPION not in found[0].aliases:
        return None
    version = client.get_model_version_by_alias(model_name, CHAMPION)
    return Version(str(version.version), json.loads(version.tags.get(_FIGURES, "{}")))


def _make_model(client: MlflowClient, model_name: str) -> None:
    if client.search_registered_models(filter_string=f"name = '{model_name}'", max_results=1):
        return
    try:
        client.create_registered_model(model_name)
    except MlflowException as error:
        if not already_there(error):
            raise


def _make_version(client: MlflowClient, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> str:
    """The number of a new version; others may be taking numbers at the same time."""
    for attempt in range(_ATTEMPTS):
        try:
            made = client.create_model_version(name, source, run_id or None, dict(tags), await_creation_for=0)
        except MlflowException as error:
            if attempt == _ATTEMPTS - 1 or not _is_busy(error):
                raise
            time.sleep(random.uniform(0, _LOOK_SECONDS * (attempt + 1)))
        else:
            return str(made.version)
    raise AssertionError


def _is_busy(error: MlflowException) -> bool:
    return any(words in str(error) for words in ("Giving up after", "database is locked"))


def _wait(client: MlflowClient, name: str, number: int, turn_seconds: float) -> None:
    """Wait until no earlier version is pending; the first in the queue that takes too long is taken for dead."""
    first, since = 0, time.monotonic()
    while earlier := [v for v in _versions(client, name, _PENDING) if v < number]:
        if min(earlier) != first:
            first, since = min(earlier), time.monotonic()
        elif time.monotonic() - since > turn_seconds:
            _void(client, name, first)
        time.sleep(_LOOK_SECONDS)


def _void(client: MlflowClient, name: str, number: int) -> None:
    """Take the ticket of a version that has no verdict."""
    if client.get_model_version(name, str(number)).tags.get(_GATE) == _PENDING:
        client.set_model_version_tag(name, str(number), _GATE, _UNFINISHED)


def _versions(client: MlflowClient, name: str, gate: str) -> list[int]:
    found = client.search_model_versions(f"name = '{name}' and tags.{_GATE} = '{gate}'")
    return [int(version.version) for version in found]


@contextlib.contextmanager
def _speaking_to(tracking_uri: str, *, uploading: bool = False) -> Generator[None]:
    """Find a registry that is gone in seconds, and say of any other failure what it was about."""
    check_reachable(tracking_uri)
    try:
        with short_timeouts(uploading=uploading):
            yield
    except (MlflowException, OSError) as error:
        raise PlatformError(
            "the model registry cannot be used",
            expected=f"a writable MLflow registry at {tracking_uri}",
            found=error,
            action="correct the tracking URI or its permissions; the exported model itself is complete",
        ) from error
