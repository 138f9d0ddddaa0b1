#!/usr/bin/python
"""Describes a file or folder in a pea."""

from __future__ import annotations

DOCUMENTATION = r"""
module: peas_create
short_description: Describe a file or folder in a pea
description:
  - Writes the small file that other hosts need to fetch and verify the content.
  - Unchanged when the pea already describes exactly what is at the source and names the same owners.
options:
  source: {description: The file or folder., type: path, required: true}
  pea: {description: Where to write the pea., type: path, required: true}
  owners: {description: "Where the content will be served, C([KEY@]HOST:PORT).", type: list, elements: str, default: []}
  web: {description: HTTP addresses of the content., type: list, elements: str, default: []}
  name: {description: Name shown to people., type: str}
  piece_size: {description: A power of two from 64K to 16M., type: str}
  channel: {description: Channel; inside one older releases are refused., type: str}
  release: {description: Number that rises with each release of the channel., type: int}
  sign: {description: Files with secret keys to sign with., type: list, elements: path, default: []}
  executable: {description: The peas command; without it the wheel of the Python that runs the module., type: str, default: peas}
author: the peas authors
"""

EXAMPLES = r"""
- peas.peas.peas_create:
    source: /srv/release
    pea: /srv/release.peas
    owners: ["192.0.2.1:7000"]
"""

RETURN = r"""
id:
  description: The id of the content, to pin it elsewhere.
  returned: always, except in check mode for a new pea
  type: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.peas.peas.plugins.module_utils import command


def main():
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "pea": {"type": "path", "required": True},
            "owners": {"type": "list", "elements": "str", "default": []},
            "web": {"type": "list", "elements": "str", "default": []},
            "name": {"type": "str"},
            "piece_size": {"type": "str"},
            "channel": {"type": "str"},
            "release": {"type": "int"},
            "sign": {"type": "list", "elements": "path", "default": []},
            **command.EXECUTABLE,
        },
        supports_check_mode=True,
    )
    params = module.params
    if not os.path.exists(params["source"]):
        module.fail_json(msg="%s: no such file or folder" % params["source"])
    if is_current(module, params):
        module.exit_json(changed=False, id=describe(module, params["pea"])["id"])
    if module.check_mode:
        module.exit_json(changed=True)
    command.run(module, "create", params["source"], "--output", params["pea"], *words(params))
    module.exit_json(changed=True, id=describe(module, params["pea"])["id"])


def words(params):
    lists = (("owner", params["owners"]), ("web", params["web"]), ("sign", params["sign"]))
    options = [word for option, values in lists for value in values for word in ("--" + option, value)]
    for option in ("name", "piece_size", "channel", "release"):
        if params[option] is not None:
            options += ["--" + option.replace("_", "-"), str(params[option])]
    return options


def is_current(module, params):
    if not os.path.exists(params["pea"]):
        return False
    said = describe(module, params["pea"])
    owners = [owner["addr"] for owner in said["owners"]]
    asked = [owner.rpartition("@")[2] for owner in params["owners"]]
    if owners != asked or any(params[field] not in (None, said[field]) for field in ("name", "channel", "release")):
        return False
    accept = (command.DONE, command.VERIFY_FAILED)
    return command.run(module, "verify", params["pea"], params["source"], accept=accept)[0] == command.DONE


def describe(module, pea):
    return json.loads(command.run(module, "inspect", pea, "--json")[1])


if __name__ == "__main__":
    main()
