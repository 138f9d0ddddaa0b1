#!/usr/bin/python
# Copyright: the peas authors
# MIT or Apache-2.0, at your option

"""Serves a file or folder in the background."""

from __future__ import annotations

DOCUMENTATION = r"""
module: peas_seed
short_description: Serve the content of a pea in the background
description:
  - Starts or stops a process that serves. Returns when links are accepted, or when the process is gone.
  - A process that serves another content of the same pea file is replaced.
version_added: 0.1.0
options:
  pea:
    description:
      - The pea.
    type: path
    required: true
  source:
    description:
      - What the pea describes. Needed to start.
    type: path
  state:
    description:
      - Whether it shall run.
    type: str
    choices:
      - started
      - stopped
    default: started
  pid_file:
    description:
      - Where the number of the process is kept; beside the pea by default.
    type: path
  log_file:
    description:
      - What peas says, one JSON object a line; beside the pea by default.
    type: path
extends_documentation_fragment:
  - peas.peas.command
  - peas.peas.command.trust
  - peas.peas.command.network
attributes:
  check_mode:
    support: full
    description: Tells whether a process would be started or stopped.
  diff_mode:
    support: none
    description: There is nothing to compare.
notes:
  - Runs on Linux.
  - The process is no service of the system, it ends with a reboot. For more make a unit that runs C(peas seed).
seealso:
  - module: peas.peas.peas_create
  - module: peas.peas.peas_install
"""

EXAMPLES = r"""
- name: The release is served
  peas.peas.peas_seed:
    pea: /srv/release.peas
    source: /srv/release
    listen: 192.0.2.1:7000
    upload_limit: 20M

- name: No more
  peas.peas.peas_seed:
    pea: /srv/release.peas
    state: stopped
"""

RETURN = r"""
pid:
  description: The process.
  returned: when it runs
  type: int
  sample: 4711
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.peas.peas.plugins.module_utils import command


def main():
    module = AnsibleModule(
        argument_spec=dict(
            pea=dict(type="path", required=True),
            source=dict(type="path"),
            state=dict(type="str", choices=["started", "stopped"], default="started"),
            pid_file=dict(type="path"),
            log_file=dict(type="path"),
            **dict(command.TRUST, **dict(command.NETWORK, **command.EXECUTABLE))
        ),
        required_if=[("state", "started", ("source", "listen"))],
        supports_check_mode=True,
    )
    params = module.params
    pea = params["pea"]
    service = command.Service(module, params["pid_file"] or pea + ".pid", params["log_file"] or pea + ".log")
    running = service.running()
    if params["state"] == "stopped":
        if not module.check_mode:
            service.stop()
        module.exit_json(changed=running is not None)
    if not os.path.exists(pea):
        module.fail_json(msg="%s: no such pea on this host" % pea)
    content = command.describe(module, pea)["id"]
    if running is not None and running[1] == content:
        module.exit_json(changed=False, pid=running[0])
    if module.check_mode:
        module.exit_json(changed=True)
    service.stop()
    words = ["seed", pea, "--file", params["source"], *command.trust_words(params), *command.network_words(params)]
    pid = service.start(words, content)
    service.says("listening", command.PATIENCE_S)
    module.exit_json(changed=True, pid=pid)


if __name__ == "__main__":
    main()
