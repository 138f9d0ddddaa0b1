"""Proof: an image to eight nodes with Ansible: copy, get_url, peas_install.

    sudo python prove.py            small form, about a minute
    sudo python prove.py --full     a larger image

Every node has its own sshd and its own limited link (a network namespace, see ../python/lab.py); ansible-playbook runs on the
controller, behind a link of the same kind. Bytes are those on the controller's link. At the end b3sum reads the image on every
node; the peas playbook then runs a second time and must change nothing on the nodes.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from lab import Lab, LabError, run, say, table, until

HERE = Path(__file__).resolve().parent
COLLECTIONS = HERE.parent.parent / "bindings/ansible"
PLAYBOOKS = {"copy": "with-copy.yml", "get_url": "with-get-url.yml", "peas_install": "bootstrap.yml"}

SSHD = """\
Port 22
ListenAddress {address}
HostKey {work}/host_key
PidFile none
AuthorizedKeysFile {work}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""


class Proof:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.nodes = [f"node{at}" for at in range(1, args.nodes + 1)]
        self.image = args.work / "image.tar"
        self.image.write_bytes(random.Random(3).randbytes(args.megabytes * 1_000_000))
        for key in ("host_key", "key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", args.work / key)
        # Where sshd leaves its rights behind; Debian's service makes it at boot.
        Path("/run/sshd").mkdir(exist_ok=True)

    def folder(self, node: str) -> Path:
        return Path(self.args.work, node)

    def method(self, method: str) -> list[tuple[str, float, float, float, str]]:
        for node in self.nodes:
            shutil.rmtree(self.folder(node), ignore_errors=True)
            self.folder(node).mkdir()
        with Lab(dict.fromkeys(["controller", *self.nodes], self.args.mbit)) as lab:
            self.start_sshds(lab)
            inventory = self.inventory(lab)
            if method == "get_url":
                self.start_web(lab)
            rows = [self.play(lab, method, inventory, method)]
            if method == "peas_install":
                rows.append(self.play(lab, method, inventory, "peas_install again"))
        return rows

    def play(self, lab: Lab, method: str, inventory: Path, what: str) -> tuple[str, float, float, float, str]:
        say(what)
        address = lab.address("controller")
        values = {"image": self.image, "controller": f"{address}:7000", "web": f"http://{address}:8080/image.tar"}
        words = [word for name, value in values.items() for word in ("-e", f"{name}={value}")]
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile=/dev/null",
            "ANSIBLE_LOCAL_TEMP": str(self.args.work / "ansible"),
            "ANSIBLE_PIPELINING": "True",
        }
        argv = [self.args.ansible_playbook, "-i", inventory, "--forks", str(len(self.nodes)), HERE / PLAYBOOKS[method], *words]
        before, begun = lab.traffic("controller"), time.monotonic()
        output = lab.run("controller", *argv, env=environment)
        seconds, sent = time.monotonic() - begun, (lab.traffic("controller") - before).sent
        self.check()
        changed = {node: int(count) for node, count in re.findall(r"^(node\d+)\s.*changed=(\d+)", output, re.MULTILINE)}
        if len(changed) != len(self.nodes) or any(changed.values()) == what.endswith("again"):
            raise LabError(f"unexpected changes: {changed}\n{output}")
        tasks = sum(changed.values())
        remark = f"{len(self.nodes)} x b3sum equal, {tasks} changes on nodes"
        return what, seconds, sent / 1e6, sent / self.image.stat().st_size, remark

    def check(self) -> None:
        expected = run("b3sum", "--no-names", self.image)
        for node in self.nodes:
            if run("b3sum", "--no-names", self.folder(node) / "image.tar") != expected:
                raise LabError(f"{node} holds something else")

    def start_sshds(self, lab: Lab) -> None:
        for node in self.nodes:
            config = self.args.work / f"sshd-{node}"
            config.write_text(SSHD.format(address=lab.address(node), work=self.args.work))
            log = (self.args.work / f"sshd-{node}.log").open("w")
            lab.start(node, "/usr/sbin/sshd", "-D", "-e", "-f", config, stderr=log)
        for node in self.nodes:
            until(f"sshd on {node}", lambda node=node: self._listens(lab, node, 22), 10)

    def start_web(self, lab: Lab) -> None:
        argv = [sys.executable, "-m", "http.server", "8080", "--bind", lab.address("controller"), "--directory", self.args.work]
        lab.start("controller", *argv, stderr=subprocess.DEVNULL)
        until("the web server", lambda: self._listens(lab, "controller", 8080), 10)

    def _listens(self, lab: Lab, host: str, port: int) -> bool:
        return f":{port} " in lab.run(host, "ss", "-Hltn")

    def inventory(self, lab: Lab) -> Path:
        path = Path(self.args.work, "inventory")
        python = f"ansible_python_interpreter={self.args.python}"
        lines = ["[controller]", f"controller ansible_connection=local {python}", "[nodes]"]
        for node in self.nodes:
            login = f"ansible_host={lab.address(node)} ansible_user=root ansible_ssh_private_key_file={self.args.work}/key"
            lines.append(f"{node} {login} {python} folder={self.folder(node)}")
        path.write_text("\n".join(lines) + "\n")
        return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--megabytes", type=int, help="size of the image")
    parser.add_argument("--mbit", type=float, default=100.0, help="of every link")
    parser.add_argument("--only", choices=tuple(PLAYBOOKS))
    parser.add_argument("--python", default=sys.executable, help="with peas")
    parser.add_argument("--ansible-playbook", default=shutil.which("ansible-playbook") or "ansible-playbook")
    args = parser.parse_args()
    args.megabytes = args.megabytes or (150 if args.full else 24)
    if os.geteuid() != 0:
        sys.exit("needs root: it builds a network")
    with tempfile.TemporaryDirectory(prefix="peas-ansible-", dir="/var/tmp") as work:
        args.work = Path(work)
        proof = Proof(args)
        rows = [row for method in ((args.only,) if args.only else PLAYBOOKS) for row in proof.method(method)]
        print(f"image of {args.megabytes} MB to {args.nodes} nodes, every host behind {args.mbit:g} Mbit/s both ways,")
        print(f"all hosts share the {os.cpu_count()} cores of this machine.\n")
        print(table(["module", "s for the playbook", "MB sent by controller", "images sent", "check"], rows))


if __name__ == "__main__":
    main()
