#!/usr/bin/python
# Copyright: the peas authors
# MIT or Apache-2.0, at your option

"""Describes a file or folder in a pea."""

from __future__ import annotations

DOCUMENTATION = r"""
module: peas_create
short_description: Describe a file or folder in a pea
description:
  - Writes the small file that other hosts need to fetch and verify the content.
  - Unchanged when the pea already describes exactly what is at the source and says what is asked for. All of the content is read.
version_added: 0.1.0
options:
  source:
    description:
      - The file or folder.
    type: path
    required: true
  pea:
    description:
      - Where to write the pea.
    type: path
    required: true
  owners:
    description:
      - Where the content will be served, C(HOST:PORT), or C(KEY@HOST:PORT) if the server's key is known.
    type: list
    elements: str
    default: []
  web:
    description:
      - HTTP(S) addresses of the content.
    type: list
    elements: str
    default: []
  name:
    description:
      - Name shown to people; the file's or folder's by default.
    type: str
  piece_size:
    description:
      - A power of two from V(64K) to V(16M); by content size by default. A change of it alone is no reason to write the pea anew.
    type: str
  channel:
    description:
      - Channel. Inside one older releases are refused.
    type: str
  release:
    description:
      - Number that rises with each release of the channel.
    type: int
  expires:
    description:
      - Hosts refuse the pea after this time from now, for example V(30d). Counts from when the pea is written.
    type: str
  sign:
    description:
      - Files on the host with secret keys to sign with, made by C(peas keygen).
    type: list
    elements: path
    default: []
extends_documentation_fragment:
  - peas.peas.command
attributes:
  check_mode:
    support: full
    description: Tells whether the pea would be written, without writing it.
  diff_mode:
    support: full
    description: Shows what the pea says before and after; in check mode the id of a new content is not known.
notes:
  - Runs on Linux.
seealso:
  - module: peas.peas.peas_seed
  - module: peas.peas.peas_install
"""

EXAMPLES = r"""
- name: The release is described
  peas.peas.peas_create:
    source: /srv/release
    pea: /srv/release.peas
    owners: ["192.0.2.1:7000"]

- name: The same, signed, so that hosts need not trust the way the pea came
  peas.peas.peas_create:
    source: /srv/release
    pea: /srv/release.peas
    owners: ["192.0.2.1:7000"]
    channel: stable
    release: 7
    sign: [/etc/peas/release.key]
"""

RETURN = r"""
id:
  description: The id of the content, to pin it elsewhere.
  returned: always, except in check mode for a new content
  type: str
  sample: 8b43ece119005dbc1ab89ae0beb3c78481d948a3bcc319e610b0524f90aebf87
bytes:
  description: Size of the content.
  returned: always, except in check mode for a new content
  type: int
  sample: 118502697
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.peas.peas.plugins.module_utils import command


def main():
    module = AnsibleModule(
        argument_spec=dict(
            source=dict(type="path", required=True),
            pea=dict(type="path", required=True),
            owners=dict(type="list", elements="str", default=[]),
            web=dict(type="list", elements="str", default=[]),
            name=dict(type="str"),
            piece_size=dict(type="str"),
            channel=dict(type="str"),
            release=dict(type="int"),
            expires=dict(type="str"),
            sign=dict(type="list", elements="path", default=[]),
            **command.EXECUTABLE
        ),
        supports_check_mode=True,
    )
    params = module.params
    if not os.path.exists(params["source"]):
        module.fail_json(msg="%s: no such file or folder" % params["source"])
    before = command.describe(module, params["pea"]) if os.path.exists(params["pea"]) else None
    if before is not None and is_current(module, before):
        module.exit_json(changed=False, id=before["id"], bytes=before["bytes"])
    result = dict(changed=True)
    after = None
    if not module.check_mode:
        command.run(module, "create", params["source"], "--output", params["pea"], *words(params))
        after = command.describe(module, params["pea"])
        result.update(id=after["id"], bytes=after["bytes"])
    module.exit_json(diff=dict(before=shown(before), after=shown(after, params)), **result)


def words(params):
    lists = (("owner", params["owners"]), ("web", params["web"]), ("sign", params["sign"]))
    options = [word for option, values in lists for value in values for word in ("--" + option, value)]
    for option in ("name", "piece_size", "channel", "release", "expires"):
        if params[option] is not None:
            options += ["--" + option.replace("_", "-"), str(params[option])]
    return options


def is_current(module, said):
    params = module.params
    owners = [owner["addr"] for owner in said["owners"]]
    if owners != [owner.rpartition("@")[2] for owner in params["owners"]] or said["web"] != params["web"]:
        return False
    if any(params[field] not in (None, said[field]) for field in ("name", "channel", "release")):
        return False
    if len(said["key_ids"]) != len(params["sign"]) or bool(said["expires_unix_s"]) != bool(params["expires"]):
        return False
    entries = command.run(module, "inspect", params["pea"], "--files")[1]["said"]["files"]
    if not said["single_file"] and set(entry["path"] for entry in entries) != names_in(params["source"]):
        return False
    return command.compare(module, params["pea"], params["source"], [])[0]


def names_in(source):
    """What a pea of this folder would list: files, links, and folders that are empty."""
    names = set()
    for folder, folders, files in os.walk(source):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        names.update(os.path.relpath(os.path.join(folder, name), source) for name in files + links)
        if not files and not folders and folder != source:
            names.add(os.path.relpath(folder, source))
    return names


def shown(said, params=None):
    """A description for people to compare."""
    if said is None:
        return "" if params is None else "the content of %s\n" % params["source"]
    fields = [(field, said[field]) for field in ("name", "id", "bytes", "channel", "release", "web", "key_ids")]
    fields.append(("owners", [owner["addr"] for owner in said["owners"]]))
    return "".join("%s: %s\n" % field for field in fields)


if __name__ == "__main__":
    main()
