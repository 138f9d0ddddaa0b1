# Copyright: the peas authors
# MIT or Apache-2.0, at your option

"""Calls the peas command, native or of the wheel: both are the same program."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

DONE = 0
VERIFY_FAILED = 7
PATIENCE_S = 30

EXECUTABLE = dict(executable=dict(type="str", default="peas"))
TRUST = dict(
    pin=dict(type="str"),
    trust_keys=dict(type="list", elements="str", default=[], no_log=False),
    threshold=dict(type="int", default=1),
    channel=dict(type="str"),
    state_dir=dict(type="path"),
)
NETWORK = dict(
    listen=dict(type="str"),
    peers=dict(type="list", elements="str", default=[]),
    upload_limit=dict(type="str"),
    download_limit=dict(type="str"),
    scope=dict(type="str", choices=["auto", "public", "any"], default="auto"),
)


def program(module):
    """The words that start peas on this host."""
    found = module.get_bin_path(module.params["executable"])
    if found:
        return [found]
    if importlib.util.find_spec("peas") is not None:
        return [sys.executable, "-m", "peas"]
    module.fail_json(msg="no peas here: install the command, or the wheel (pip install peas) for %s" % sys.executable)


def run(module, *words, accept=(DONE,)):
    """Runs peas to its end: (exit code, its events by name). Fails the task on any code that is not accepted."""
    code, output, complaint = module.run_command([*program(module), *words, "--json"])
    said = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    events = dict((event.get("event", "said"), event) for event in said)
    if code not in accept:
        error = events.get("error", {})
        message = ": ".join(text for text in (error.get("message"), error.get("hint")) if text)
        module.fail_json(msg=message or complaint.strip() or "peas failed", rc=code, stderr=complaint)
    return code, events


def describe(module, pea):
    """What a pea says."""
    return run(module, "inspect", pea)[1]["said"]


def compare(module, pea, place, trust):
    """(whether the place is exactly what the pea says, names of what is not)."""
    if not os.path.lexists(place):
        return False, []
    code, events = run(module, "verify", pea, place, *trust, accept=(DONE, VERIFY_FAILED))
    return code == DONE, events.get("verified", {}).get("bad_files", [])


def trust_words(params):
    """What makes the pea the one that is wanted."""
    words = []
    if params["pin"]:
        words += ["--pin", params["pin"]]
    for key in params["trust_keys"]:
        words += ["--trust-key", key]
    if params["trust_keys"]:
        words += ["--threshold", str(params["threshold"])]
    if params["channel"]:
        words += ["--of-channel", params["channel"]]
    if params["state_dir"]:
        words += ["--state-dir", params["state_dir"]]
    return words


def network_words(params):
    """How to talk to others. The pea stays as it is: a file that changes by itself would be a change of every later run."""
    words = ["--no-refresh"]
    for peer in params["peers"]:
        words += ["--peer", peer]
    for option in ("listen", "upload_limit", "download_limit", "scope"):
        if params[option]:
            words += ["--" + option.replace("_", "-"), params[option]]
    return words


class Service:
    """A peas in the background, known by a file that holds its process number and the content's id."""

    def __init__(self, module, pid_file, log_file):
        self.module = module
        self.pid_file = pid_file
        self.log_file = log_file

    def running(self):
        """(process, content id), or None. Numbers are used again: the process must have our words."""
        try:
            with open(self.pid_file) as file:
                pid, content = file.read().split()
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                words = file.read().split(b"\0")
            with open("/proc/%s/stat" % pid) as file:
                state = file.read().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return (int(pid), content) if b"--no-refresh" in words and state not in "ZX" else None

    def start(self, words, content):
        """Its process number."""
        # Its output is a file: nothing of this task is held open, so the task can end.
        with open(self.log_file, "w") as log:
            words = [*program(self.module), *words, "--json"]
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        with open(self.pid_file, "w") as file:
            file.write("%d %s\n" % (child.pid, content))
        self._child = child
        return child.pid

    def says(self, name, patience_s=None):
        """Waits for an event and returns it. The task fails when the process ends without it, or after a while."""
        deadline = None if patience_s is None else time.monotonic() + patience_s
        while True:
            # Asked before its words are read: what it said last is not missed.
            alive = self._is_alive()
            events = self.events()
            if name in events:
                return events[name]
            if not alive:
                error = events.get("error", {})
                self.forget()
                self.module.fail_json(msg=error.get("message", "peas ended at once"), rc=error.get("exit"), hint=error.get("hint"))
            if deadline is not None and time.monotonic() > deadline:
                self.stop()
                self.module.fail_json(msg="peas did not get so far within %d s" % patience_s, events=sorted(events))
            time.sleep(0.05)

    def stop(self):
        """Returns when the process is gone."""
        found = self.running()
        if found is not None:
            os.kill(found[0], signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE_S
            while self.running() is not None:
                if time.monotonic() > deadline:
                    self.module.fail_json(msg="process %d does not end" % found[0])
                time.sleep(0.05)
        self.forget()

    def forget(self):
        """Removes what a process that is gone left."""
        for path in (self.pid_file, self.log_file):
            if os.path.exists(path):
                os.unlink(path)

    def _is_alive(self):
        child = getattr(self, "_child", None)
        return child.poll() is None if child is not None else self.running() is not None

    def events(self):
        try:
            with open(self.log_file) as file:
                lines = file.read().splitlines(True)
        except OSError:
            return {}
        said = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return dict((event.get("event", "said"), event) for event in said)
