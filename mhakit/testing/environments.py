"""Environments of asv that see what is installed where asv runs: ours, and a plugin author's.

Named in an ``asv.conf.json``, this makes ``asv run`` measure commits beside the mhakit and the
peers that are already there, and work where nobody can be asked about the machine::

    "plugins": [".mhakit.testing.environments"],
    "environment_type": "beside",
    "pythons": ["same"]

Only asv imports it; asv comes with the extra ``bench``.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

from asv.environment import EnvironmentUnavailable, get_env_name
from asv.machine import Machine, MachineCollection
from asv.plugins.virtualenv import Virtualenv
from asv.util import UserError

from mhakit import backends

__all__ = ["PEERS", "Beside", "name_machine", "peers", "setup"]

PEERS = ("torch", "onnxruntime", "jax")


class Beside(Virtualenv):
    """A fresh environment for a version of Python; for ``same`` one that sees this one's packages.

    The first holds nothing but a commit of the project and what it requires: times. The second adds
    a commit to what is installed where asv runs: ratios to peers, which nobody downloads twice.
    """

    tool_name = "beside"

    def __init__(self, conf: Any, python: str, requirements: Any, tagged_env_vars: Any) -> None:
        self._beside = python == "same"
        if self._beside:
            python = f"{sys.version_info[0]}.{sys.version_info[1]}"
            requirements = {"peers": peers() or "none"}
        super().__init__(conf, python, requirements, tagged_env_vars)
        if self._beside:
            self._executable = sys.executable
            self._install_command = [
                "in-dir={env_dir} python -m pip install --no-deps --ignore-installed {wheel_file}"
            ]
        elif subprocess.run([self._executable, "-c", ""], capture_output=True).returncode:
            # a shim of pyenv is found for a version that is not switched on
            raise EnvironmentUnavailable(f"python {python} is found, and does not run")

    @property
    def name(self) -> str:
        """How results are called: without the versions of all peers."""
        if self._beside:
            return f"beside-py{self._python}"
        name: str = get_env_name("fresh", self._python, self._requirements, self._tagged_env_vars)
        return name

    @classmethod
    def matches(cls, python: str) -> bool:
        """Return no: this kind is asked for by its name."""
        return False

    def _install_requirements(self) -> None:
        if not self._beside:
            super()._install_requirements()
            return
        inside = self.run_executable(
            "python", ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        )
        # all that is on the path, for what is installed editable is on it by its own folder
        seen = dict.fromkeys(
            [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *map(_whole, sys.path)]
        )
        base = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
        lines = [path for path in seen if path and path not in base and Path(path).is_dir()]
        Path(inside.strip(), "beside.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup() -> None:
    """Do what asv waits for when it has loaded this."""
    name_machine()


def peers() -> str:
    """Return the peers that are installed here with their versions."""
    found = []
    for name in PEERS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def name_machine() -> None:
    """Note what asv asks about a machine, where it was not asked yet: nobody may be there."""
    try:
        MachineCollection.load(Machine.get_unique_machine_name())
    except UserError:
        told = Machine.get_defaults()
        if not Path(MachineCollection.get_machine_file_path()).is_file():
            # the only machine of the file is taken for this one, so it need not be the host's name
            told["machine"] = _machine_name(told)
        MachineCollection.save(told["machine"], told)


def _machine_name(told: dict[str, str]) -> str:
    """Return a name made of processor, cores and registers, which says more than the host's.

    Processors of one name differ in their registers, and no figure of one is another's.
    """
    words = told["cpu"].split("@")[0].replace("(R)", " ").replace("(TM)", " ").split()
    words = [word for word in words if word.lower() not in ("cpu", "processor")]
    bits = 8 * backends.select("cpu").machine()["vector_bytes"]
    return "-".join([*words, told["num_cpu"], "cores", f"{bits}-bit"]).lower()


def _whole(path: str) -> str:
    """Return a path of sys.path as it is, and nothing of the folder that asv was called in."""
    return "" if path in ("", ".") or "lib-dynload" in path else path
