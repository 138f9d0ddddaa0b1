"""Calls the peas command, native or of the wheel: both have the same words and exit codes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

DONE = 0
VERIFY_FAILED = 7

TRUST = {
    "pin": {"type": "str"},
    "trust_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "threshold": {"type": "int", "default": 1},
}
NETWORK = {
    "listen": {"type": "str"},
    "peers": {"type": "list", "elements": "str", "default": []},
    "upload_limit": {"type": "str"},
    "download_limit": {"type": "str"},
    "scope": {"type": "str", "choices": ["auto", "public", "any"], "default": "auto"},
}
EXECUTABLE = {"executable": {"type": "str", "default": "peas"}}


def program(module):
    """The words that start peas on this host."""
    found = module.get_bin_path(module.params["executable"])
    if found:
        return [found]
    if importlib.util.find_spec("peas") is not None:
        return [sys.executable, "-m", "peas"]
    module.fail_json(msg="no peas here: install the command, or the wheel (pip install peas) for %s" % sys.executable)


def run(module, *argv, **accept):
    """Runs peas to its end: (exit code, output). Fails the task on any code that is not accepted."""
    code, output, complaint = module.run_command([*program(module), *argv])
    if code not in accept.get("accept", (DONE,)):
        module.fail_json(msg=complaint.strip() or "peas failed", rc=code, stdout=output, stderr=complaint)
    return code, output


def trust(params):
    """What makes the pea the one that is wanted."""
    if params["pin"]:
        return ["--pin", params["pin"]]
    if params["trust_keys"]:
        keys = [word for key in params["trust_keys"] for word in ("--trust-key", key)]
        return [*keys, "--threshold", str(params["threshold"])]
    return []


def network(params):
    """How to talk to others."""
    words = [word for peer in params["peers"] for word in ("--peer", peer)]
    for option in ("listen", "upload_limit", "download_limit", "scope"):
        if params[option]:
            words += ["--" + option.replace("_", "-"), params[option]]
    return words


def start(module, log, *argv):
    """Starts peas in the background, detached from this task."""
    with open(log, "a") as output:
        return subprocess.Popen(
            [*program(module), *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
