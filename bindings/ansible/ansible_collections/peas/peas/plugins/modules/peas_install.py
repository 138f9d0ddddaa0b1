#!/usr/bin/python
# Copyright: the peas authors
# MIT or Apache-2.0, at your option

"""Makes a place on the host what a pea says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: peas_install
short_description: Make a file or folder what a pea says, fetching from the publisher and from other hosts
description:
  - Fetches, resumes or repairs the content of a pea. Nothing appears under its final name before all of it is verified.
  - Unchanged when the place already holds exactly that content. All of it is read to know.
  - What arrived before a failure is kept and not fetched again by the next run.
  - Run it on as many hosts at once as can help each other, so with C(forks) at least as high as their number.
version_added: 0.1.0
options:
  pea:
    description:
      - The pea, a path on the host or an HTTP(S) address.
      - One from an address is kept beside O(dest), with C(.peas) added to its name.
    type: str
    required: true
  dest:
    description:
      - Where the file or folder shall be. The folder that it lies in must exist.
      - Files in it that the pea does not know are left alone.
    type: path
    required: true
  state:
    description:
      - V(present) makes O(dest) what the pea says. If O(pea) is an address and was fetched before, that one counts.
      - V(latest) fetches the pea from its address anew. The same as V(present) for a path.
      - V(seeding) is V(latest), and sees to it that a process on the host serves the content to others. It serves for O(share_for),
        or until M(peas.peas.peas_seed) with O(peas.peas.peas_seed#module:state=stopped) and
        O(peas.peas.peas_seed#module:pid_file) set to O(dest) with C(.peas-pid) added stops it.
    type: str
    choices:
      - present
      - latest
      - seeding
    default: present
  share_for:
    description:
      - Go on serving other hosts in the background for this long, for example V(60s).
      - With O(state=present) and O(state=latest) only after a run that fetched something.
    type: str
  give_up:
    description:
      - Fail when nothing arrived for this long.
    type: str
    default: 10m
extends_documentation_fragment:
  - ansible.builtin.files
  - peas.peas.command
  - peas.peas.command.trust
  - peas.peas.command.network
attributes:
  check_mode:
    support: full
    description: Tells whether something would be fetched, without fetching more than the pea.
  diff_mode:
    support: full
    description: Shows which files are missing or damaged, at most 1,000.
notes:
  - Runs on Linux.
  - Owner, group and mode are applied to everything below a folder. Give a mode as C(u=rwX,go=rX) there, so that folders can be entered.
seealso:
  - module: peas.peas.peas_create
  - module: peas.peas.peas_seed
"""

EXAMPLES = r"""
- name: The release is on every host
  peas.peas.peas_install:
    pea: /var/lib/release.peas
    dest: /opt/release
    owner: root
    mode: u=rwX,go=rX
    share_for: 30s

- name: The newest release of a channel, signed, is on every host, and every host helps
  peas.peas.peas_install:
    pea: https://downloads.example.org/release.peas
    dest: /opt/release
    state: seeding
    trust_keys: ["{{ release_key }}"]
    channel: stable
    state_dir: /var/lib/peas
    upload_limit: 20M
"""

RETURN = r"""
id:
  description: The id of the content.
  returned: always
  type: str
  sample: 8b43ece119005dbc1ab89ae0beb3c78481d948a3bcc319e610b0524f90aebf87
bytes:
  description: Size of the content.
  returned: always
  type: int
  sample: 118502697
bytes_reused:
  description: What was on the host already, also from a run that failed.
  returned: when something was installed
  type: int
  sample: 37000000
bytes_from_origin:
  description: What the publisher sent to this host.
  returned: when something was installed
  type: int
  sample: 22000000
bytes_from_peers:
  description: What other hosts sent to this host.
  returned: when something was installed
  type: int
  sample: 59000000
pid:
  description: The process that serves.
  returned: when one does
  type: int
  sample: 4711
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.peas.peas.plugins.module_utils import command

FACTS = ("bytes_reused", "bytes_from_origin", "bytes_from_peers")
PEA_BYTES_MAX = 64 << 20


def main():
    module = AnsibleModule(
        argument_spec=dict(
            pea=dict(type="str", required=True),
            dest=dict(type="path", required=True),
            state=dict(type="str", choices=["present", "latest", "seeding"], default="present"),
            share_for=dict(type="str"),
            give_up=dict(type="str", default="10m"),
            **dict(command.TRUST, **dict(command.NETWORK, **command.EXECUTABLE))
        ),
        add_file_common_args=True,
        supports_check_mode=True,
    )
    params = module.params
    dest = params["dest"]
    trust = command.trust_words(params)
    pea = local_pea(module)
    what = command.describe(module, pea)
    result = dict(changed=False, id=what["id"], bytes=what["bytes"])
    service = command.Service(module, dest + ".peas-pid", dest + ".peas-log")
    serving = service.running()

    whole, bad_files = command.compare(module, pea, dest, trust)
    if not whole:
        result.update(changed=True, diff=difference(dest, what, bad_files))
        if not module.check_mode:
            result.update(install(module, service, pea, what["id"], trust))
    elif params["state"] == "seeding" and (serving is None or serving[1] != what["id"]):
        result.update(changed=True)
        if not module.check_mode:
            service.stop()
            service.start(words(module, pea, trust), what["id"])
            service.says("complete")
    elif serving is None and not module.check_mode:
        service.forget()
    if not module.check_mode:
        keep(module, pea)
        serving = service.running()
        if serving is not None:
            result.update(pid=serving[0])
    if os.path.lexists(dest):
        result.update(changed=attributes(module, dest, result["changed"]))
    module.exit_json(**result)


def local_pea(module):
    """The path of the pea that counts."""
    pea, dest = module.params["pea"], module.params["dest"]
    if not is_address(pea):
        if not os.path.exists(pea):
            module.fail_json(msg="%s: no such pea on this host" % pea)
        return pea
    kept = dest + ".peas"
    if module.params["state"] == "present" and os.path.exists(kept) and os.path.lexists(dest):
        return kept
    try:
        data = open_url(pea, timeout=60).read(PEA_BYTES_MAX + 1)
    except Exception as error:
        module.fail_json(msg="%s: %s" % (pea, error))
    handle, path = tempfile.mkstemp(suffix=".peas", dir=module.tmpdir)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return path


def keep(module, pea):
    """A pea from an address stays beside the content, for the next run."""
    kept = module.params["dest"] + ".peas"
    if is_address(module.params["pea"]) and pea != kept:
        if not os.path.exists(kept) or command.describe(module, kept)["id"] != command.describe(module, pea)["id"]:
            module.atomic_move(pea, kept)


def is_address(pea):
    return pea.lower().startswith(("http://", "https://"))


def words(module, pea, trust):
    """The command that installs, and shares as long as asked."""
    params = module.params
    sharing = ["--seed-time", params["share_for"]] if params["share_for"] else []
    if params["state"] == "seeding" and not sharing:
        sharing = ["--keep-seeding"]
    network = command.network_words(params)
    return ["install", pea, "--output", params["dest"], *trust, *network, "--give-up", params["give_up"], *sharing]


def install(module, service, pea, content, trust):
    """What the command says about the content when it is in place."""
    if not module.params["share_for"] and module.params["state"] != "seeding":
        said = command.run(module, *words(module, pea, trust))[1]
    else:
        # One process receives and shares: it stays in the swarm, and nothing is hashed twice. One that a task that was cut off
        # has left goes on.
        running = service.running()
        if running is None or running[1] != content or "complete" in service.events():
            service.stop()
            service.start(words(module, pea, trust), content)
        said = dict(complete=service.says("complete"))
    return dict((fact, said["complete"][fact]) for fact in FACTS)


def attributes(module, dest, changed):
    """Owner, group and mode, of everything below a folder too."""
    paths = [dest]
    if os.path.isdir(dest) and not os.path.islink(dest):
        for folder, folders, files in os.walk(dest):
            paths += [os.path.join(folder, name) for name in folders + files]
    for path in paths:
        wanted = module.load_file_common_arguments(module.params, path=path)
        if os.path.islink(path):
            wanted["mode"] = None
        changed = module.set_fs_attributes_if_different(wanted, changed)
    return changed


def difference(dest, what, bad_files):
    """For people to compare."""
    if not os.path.lexists(dest):
        before = "%s: nothing\n" % dest
    else:
        before = "%s: %d files are missing or damaged\n%s" % (dest, len(bad_files), "".join("%s\n" % name for name in bad_files))
    return dict(before=before, after="%s: %s, %d bytes, id %s\n" % (dest, what["name"], what["bytes"], what["id"]))


if __name__ == "__main__":
    main()
