#!/usr/bin/python
"""Serves a file or folder in the background."""

from __future__ import annotations

DOCUMENTATION = r"""
module: peas_seed
short_description: Serve the content of a pea in the background
description:
  - Starts or stops a process that serves. Returns when links are accepted, or when the process is gone.
options:
  pea: {description: The pea., type: path, required: true}
  source: {description: What it describes; needed to start., type: path}
  listen: {description: "Where to accept peers, IP:PORT; needed to start.", type: str}
  state: {description: Whether it shall run., type: str, choices: [started, stopped], default: started}
  pid_file: {description: Where the number of the process is kept; beside the pea by default., type: path}
  log_file: {description: What peas says; beside the pea by default., type: path}
  peers: {description: More addresses to try., type: list, elements: str, default: []}
  upload_limit: {description: Bytes per second to send at most (for example V(20M))., type: str}
  download_limit: {description: Bytes per second to receive at most., type: str}
  scope: {description: Which addresses learnt from peers may be dialled., type: str, choices: [auto, public, any], default: auto}
  pin: {description: Accept only the content with this id., type: str}
  trust_keys: {description: Accept only a pea signed by these public keys., type: list, elements: str, default: []}
  threshold: {description: How many of the keys must have signed., type: int, default: 1}
  executable: {description: The peas command; without it the wheel of the Python that runs the module., type: str, default: peas}
author: the peas authors
"""

EXAMPLES = r"""
- peas.peas.peas_seed:
    pea: /srv/release.peas
    source: /srv/release
    listen: 192.0.2.1:7000
- peas.peas.peas_seed:
    pea: /srv/release.peas
    state: stopped
"""

RETURN = r"""
pid:
  description: The process.
  returned: when it runs
  type: int
"""

import os
import signal
import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.peas.peas.plugins.module_utils import command

PATIENCE_S = 30


def main():
    module = AnsibleModule(
        argument_spec={
            "pea": {"type": "path", "required": True},
            "source": {"type": "path"},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
            "pid_file": {"type": "path"},
            "log_file": {"type": "path"},
            **command.TRUST,
            **command.NETWORK,
            **command.EXECUTABLE,
        },
        required_if=[("state", "started", ("source", "listen"))],
        supports_check_mode=True,
    )
    pea = module.params["pea"]
    pid_file = module.params["pid_file"] or pea + ".pid"
    pid = running(pid_file, pea)
    if module.params["state"] == "stopped":
        if pid and not module.check_mode:
            stop(module, pid, pid_file, pea)
        module.exit_json(changed=bool(pid))
    if pid:
        module.exit_json(changed=False, pid=pid)
    if module.check_mode:
        module.exit_json(changed=True)
    module.exit_json(changed=True, pid=begin(module, pid_file))


def begin(module, pid_file):
    params = module.params
    log = params["log_file"] or params["pea"] + ".log"
    words = ["seed", params["pea"], "--file", params["source"], *command.trust(params), *command.network(params)]
    child = command.start(module, log, *words)
    deadline = time.monotonic() + PATIENCE_S
    while not accepts(params["listen"]):
        if child.poll() is not None:
            with open(log) as file:
                module.fail_json(msg="peas seed ended at once", rc=child.returncode, log=file.read()[-2000:])
        if time.monotonic() > deadline:
            child.terminate()
            module.fail_json(msg="%s does not accept links after %d s" % (params["listen"], PATIENCE_S))
        time.sleep(0.05)
    with open(pid_file, "w") as file:
        file.write("%d\n" % child.pid)
    return child.pid


def accepts(address):
    host, _colon, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def running(pid_file, pea):
    """The process, if it is still the one that serves this pea: numbers are used again."""
    try:
        with open(pid_file) as file:
            pid = int(file.read())
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            words = file.read().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"seed" in words and os.fsencode(pea) in words else None


def stop(module, pid, pid_file, pea):
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    while running(pid_file, pea):
        if time.monotonic() > deadline:
            module.fail_json(msg="process %d does not end" % pid)
        time.sleep(0.05)
    os.unlink(pid_file)


if __name__ == "__main__":
    main()
