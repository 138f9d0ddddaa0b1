# Copyright: the peas authors
# MIT or Apache-2.0, at your option

"""Options that several modules have: which program, whom to trust, how to talk to others."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  executable:
    description:
      - The C(peas) command on the host.
      - Without it the wheel of the Python that runs the module is used (C(pip install peas)).
    type: str
    default: peas
requirements:
  - The C(peas) command, or the Python package of that name, on the host that runs the module.
author:
  - the peas authors (@peas)
"""

    TRUST = r"""
options:
  pin:
    description:
      - Accept only the content with this id, as M(peas.peas.peas_create) returns it.
    type: str
  trust_keys:
    description:
      - Accept only a pea that is signed by these public keys, in hexadecimal.
      - Without O(pin) and O(trust_keys) whoever brought the pea to the host answers for it.
    type: list
    elements: str
    default: []
  threshold:
    description:
      - How many of O(trust_keys) must have signed.
    type: int
    default: 1
  channel:
    description:
      - Accept only a pea of this channel.
    type: str
  state_dir:
    description:
      - Folder on the host that remembers releases, so that an older one of the same channel is refused.
    type: path
"""

    NETWORK = r"""
options:
  listen:
    description:
      - Where to accept peers, C(IP:PORT).
      - An unused port by default where this is not required.
    type: str
  peers:
    description:
      - More addresses to try, C(HOST:PORT).
    type: list
    elements: str
    default: []
  upload_limit:
    description:
      - Bytes per second to send at most, for example V(20M). K, M and G are powers of 1024.
    type: str
  download_limit:
    description:
      - Bytes per second to receive at most.
    type: str
  scope:
    description:
      - Which addresses learnt from peers may be dialled.
      - V(auto) is public ones, and those of networks that the host is in.
    type: str
    choices:
      - auto
      - public
      - any
    default: auto
"""
