#!/usr/bin/python
"""Makes a place on the host what a pea says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: peas_install
short_description: Make a file or folder what a pea says, fetching from the publisher and from other hosts
description:
  - Fetches, resumes or repairs the content of a pea. Nothing appears under its final name before all is verified.
  - Unchanged when the place already holds exactly that content.
options:
  pea: {description: The pea on this host., type: path, required: true}
  dest: {description: Where the file or folder shall be., type: path, required: true}
  share_for: {description: Go on serving other hosts in the background for this long (for example V(60s))., type: str}
  give_up: {description: Fail when nothing arrived for this long., type: str, default: 10m}
  pin: {description: Accept only the content with this id., type: str}
  trust_keys: {description: Accept only a pea signed by these public keys., type: list, elements: str, default: []}
  threshold: {description: How many of the keys must have signed., type: int, default: 1}
  listen: {description: "Where to accept peers, IP:PORT; an unused port by default.", type: str}
  peers: {description: More addresses to try., type: list, elements: str, default: []}
  upload_limit: {description: Bytes per second to send at most (for example V(20M))., type: str}
  download_limit: {description: Bytes per second to receive at most., type: str}
  scope: {description: Which addresses learnt from peers may be dialled., type: str, choices: [auto, public, any], default: auto}
  executable: {description: The peas command; without it the wheel of the Python that runs the module., type: str, default: peas}
author: the peas authors
"""

EXAMPLES = r"""
- name: The release is on every host
  peas.peas.peas_install:
    pea: /var/lib/release.peas
    dest: /opt/release
    share_for: 30s
"""

RETURN = r"""
message:
  description: What peas said, for example how many bytes came from peers.
  returned: when something was installed
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.peas.peas.plugins.module_utils import command


def main():
    module = AnsibleModule(
        argument_spec={
            "pea": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "share_for": {"type": "str"},
            "give_up": {"type": "str", "default": "10m"},
            **command.TRUST,
            **command.NETWORK,
            **command.EXECUTABLE,
        },
        supports_check_mode=True,
    )
    pea, dest = module.params["pea"], module.params["dest"]
    trust, network = command.trust(module.params), command.network(module.params)
    if not os.path.exists(pea):
        module.fail_json(msg="%s: no such pea on this host" % pea)
    if is_whole(module, pea, dest, trust):
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)
    give_up = ["--give-up", module.params["give_up"]]
    _code, output = command.run(module, "install", pea, "--output", dest, *trust, *network, *give_up)
    if module.params["share_for"]:
        # Installing what is whole already is to share it, and ends by itself.
        sharing = ["--seed-time", module.params["share_for"]]
        command.start(module, os.devnull, "install", pea, "--output", dest, *trust, *network, *sharing)
    module.exit_json(changed=True, message=output.strip())


def is_whole(module, pea, dest, trust):
    if not os.path.lexists(dest):
        return False
    code, _output = command.run(module, "verify", pea, dest, *trust, accept=(command.DONE, command.VERIFY_FAILED))
    return code == command.DONE


if __name__ == "__main__":
    main()
