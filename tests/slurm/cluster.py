"""A Slurm of one machine in a folder: munged, slurmctld and slurmd of Debian's packages, as root."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

SBIN = "/usr/sbin:/usr/local/sbin"
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0,batch_sched_delay=0,defer
ReturnToService=2
JobRequeue=1
KillWait=5
MaxArraySize=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={node} CPUs=8 RealMemory=32000
PartitionName=low Nodes=n1 Default=YES PriorityTier=1 MaxTime=60 OverSubscribe=NO
PartitionName=high Nodes=n1 PriorityTier=2 MaxTime=60 OverSubscribe=NO
"""


class Cluster:
    """Slurm's daemons; ``SLURM_CONF`` tells its commands where they are.

    Args:
        folder: of everything that they write; its path is short, since it holds a socket.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[subprocess.Popen] = []

    def start(self) -> None:
        """Start the daemons and wait until the node is ready."""
        self.folder.chmod(0o755)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        ports = {"controller": free_port(), "node": free_port()}
        configuration = self.folder / "slurm.conf"
        configuration.write_text(CONFIGURATION.format(folder=self.folder, **ports))
        os.environ["SLURM_CONF"] = str(configuration)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{name}" for option, name in names.items()]
        self._start("munged", "--foreground", "--force", *options)
        wait_for(lambda: (self.folder / "munge.socket").exists(), 20, "munged")
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", "n1")
        wait_for(lambda: self.call("sinfo", "--noheader", "--format", "%T").split()[:1] == ["idle"], 60, "Slurm")

    def call(self, *words: str) -> str:
        """Standard output of one of Slurm's commands; empty where it fails."""
        return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout

    def stop(self) -> None:
        """Cancel all jobs, end the daemons."""
        self.call("scancel", "--user=root", "--signal=KILL", "--full")
        self.call("scancel", "--user=root")
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def logs(self) -> str:
        """The last lines of the daemons' logs, for an error message."""
        texts = [path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(texts)

    def _start(self, name: str, *options: str) -> None:
        path = shutil.which(name, path=f"{os.environ['PATH']}:{SBIN}")
        with open(self.folder / f"{name}.out", "w") as output:
            process = subprocess.Popen([path, *options], stdout=output, stderr=output, cwd=self.folder)
        self.processes.append(process)


def missing_programs() -> list[str]:
    """Which of the programs that a cluster needs are not installed."""
    path = f"{os.environ['PATH']}:{SBIN}"
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")
    return [name for name in needed if shutil.which(name, path=path) is None]


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(condition, seconds: float, what: str):
    """Ask for a condition until it holds; returns what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.2)
    return found
