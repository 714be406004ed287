"""What `asv` loads for this repository, named in asv.conf.json: environments and the history."""

import os
import shutil
from pathlib import Path

from asv.environment import EnvironmentUnavailable

import mhakit
from mhakit.testing.environments import Beside, name_machine, peers

ROOT = Path(__file__).parent
HISTORY = ROOT / "asv_benchmarks" / "history"


class WithPeers(Beside):
    """The environments of asv.conf.json; the one of ``same`` only where it adds something."""

    tool_name = "mhakit"

    def __init__(self, conf, python, requirements, tagged_env_vars):
        ours = all(record.distribution == "mhakit" for record in mhakit.combinations())
        if python == "same" and not peers() and ours:
            raise EnvironmentUnavailable(
                'no peer is installed, so ratios to peers are left out: pip install ".[peers]"'
            )
        super().__init__(conf, python, requirements, tagged_env_vars)


def setup():
    """Do what asv waits for when it has loaded this."""
    name_machine()
    name_combinations()
    lay_out_history(ROOT / ".asv" / "results")


def name_combinations():
    """Tell every environment which combinations are installed here."""
    names = [record.name for record in mhakit.combinations()]
    os.environ["ASV_MHAKIT_COMBINATIONS"] = ",".join(names)


def lay_out_history(results):
    """Put the results that the repository keeps among those measured here."""
    for source in HISTORY.rglob("*.json"):
        target = results / source.relative_to(HISTORY)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
