"""Proof: a folder of packages to eight new nodes with Ansible: copy, get_url, peas_install.

    sudo python prove.py            small form, one to two minutes
    sudo python prove.py --full     more packages

Every node has its own sshd and its own limited link (a network namespace, see ../python/lab.py); ansible-playbook runs on the
controller, behind a link of the same kind. Bytes are those on the controller's link, those of Ansible itself included. At the
end b3sum reads every package on every node. The peas playbook then runs a second time and must change nothing on the nodes, and
a third time after one package on one node was damaged: that must be the only change.
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

Row = tuple[str, float, float, str, str]


class Proof:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.nodes = [f"node{at}" for at in range(1, args.nodes + 1)]
        self.packages = args.work / "packages"
        self.packages.mkdir()
        chance = random.Random(3)
        for at in range(args.packages):
            (self.packages / f"package-{at}.deb").write_bytes(chance.randbytes(args.megabytes * 1_000_000 // args.packages))
        for key in ("host_key", "key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", args.work / key)
        # Where sshd leaves its rights behind; Debian's service makes it at boot.
        Path("/run/sshd").mkdir(exist_ok=True)

    def folder(self, node: str) -> Path:
        return Path(self.args.work, node)

    def method(self, method: str) -> list[Row]:
        for node in self.nodes:
            shutil.rmtree(self.folder(node), ignore_errors=True)
            self.folder(node).mkdir()
        with Lab(dict.fromkeys(["controller", *self.nodes], self.args.mbit)) as lab:
            self.start_sshds(lab)
            inventory = self.inventory(lab)
            if method == "get_url":
                self.start_web(lab)
            rows = [self.play(lab, method, inventory, method, set(self.nodes))]
            if method == "peas_install":
                rows.append(self.play(lab, method, inventory, "the same again", set()))
                with (self.folder("node1") / "packages/package-1.deb").open("r+b") as file:
                    file.write(b"damage")
                rows.append(self.play(lab, method, inventory, "one package damaged", {"node1"}))
        return rows

    def play(self, lab: Lab, method: str, inventory: Path, what: str, changing: set[str]) -> Row:
        say(what)
        address = lab.address("controller")
        values = {"packages": self.packages, "controller": f"{address}:7000", "web": f"http://{address}:8080/packages"}
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
        changes = {node: int(count) for node, count in re.findall(r"^(node\d+)\s.*changed=(\d+)", output, re.MULTILINE)}
        changed = {node for node, count in changes.items() if count}
        if len(changes) != len(self.nodes) or changed != changing:
            raise LabError(f"unexpected changes: {changes}\n{output}")
        size = sum(package.stat().st_size for package in self.packages.iterdir())
        return what, seconds, sent / 1e6, f"{sent / size:.2f}", f"b3sum equal, {len(changed)} nodes changed"

    def check(self) -> None:
        names = sorted(package.name for package in self.packages.iterdir())
        expected = run("b3sum", *names, cwd=self.packages)
        for node in self.nodes:
            folder = self.folder(node) / "packages"
            if sorted(os.listdir(folder)) != names or run("b3sum", *names, cwd=folder) != expected:
                raise LabError(f"{node} holds something else")

    def start_sshds(self, lab: Lab) -> None:
        for node in self.nodes:
            config = self.args.work / f"sshd-{node}"
            config.write_text(SSHD.format(address=lab.address(node), work=self.args.work))
            log = (self.args.work / f"sshd-{node}.log").open("w")
            lab.start(node, "/usr/sbin/sshd", "-D", "-e", "-f", config, stderr=log)
        for node in self.nodes:
            until(f"sshd on {node}", lambda node=node: self._listens(lab, node, 22), 60)

    def start_web(self, lab: Lab) -> None:
        argv = [sys.executable, "-m", "http.server", "8080", "--bind", lab.address("controller"), "--directory", self.args.work]
        lab.start("controller", *argv, stderr=subprocess.DEVNULL)
        until("the web server", lambda: self._listens(lab, "controller", 8080), 60)

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
    parser.add_argument("--megabytes", type=int, help="size of all packages together")
    parser.add_argument("--packages", type=int, default=8)
    parser.add_argument("--mbit", type=float, default=100.0, help="of every link")
    parser.add_argument("--only", choices=tuple(PLAYBOOKS))
    parser.add_argument("--python", default=sys.executable, help="with peas")
    parser.add_argument("--ansible-playbook", default=shutil.which("ansible-playbook") or "ansible-playbook")
    args = parser.parse_args()
    args.megabytes = args.megabytes or (60 if args.full else 24)
    if os.geteuid() != 0:
        sys.exit("needs root: it builds a network")
    with tempfile.TemporaryDirectory(prefix="peas-ansible-", dir="/var/tmp") as work:
        args.work = Path(work)
        proof = Proof(args)
        rows = [row for method in ((args.only,) if args.only else PLAYBOOKS) for row in proof.method(method)]
        print(f"{args.packages} packages, {args.megabytes} MB together, to {args.nodes} nodes,")
        print(f"every host behind a link of {args.mbit:g} Mbit/s both ways,")
        print(f"all hosts share the {os.cpu_count()} cores of this machine.\n")
        print(table(["module", "s for the playbook", "MB sent by controller", "copies sent", "check"], rows))
        sent = {row[0]: row[2] for row in rows}
        if not args.only and sent["peas_install"] > min(sent["copy"], sent["get_url"]) / 2:
            sys.exit("not as it should be: peas_install made the controller send more than half of what the others did")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"failed: {error}")
