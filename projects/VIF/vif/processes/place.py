"""Which of how many processes this one is, from what torchrun or srun left in the environment."""

import re
from dataclasses import dataclass
from typing import Mapping, Optional

from ..errors import ProcessError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """One process among several.

    Attributes:
        rank: number of this process over all machines, from 0.
        world_size: processes over all machines, >= 2.
        local_rank: number of this process on its machine, from 0.
        node: which machine; processes with one `node` share a machine.
        host, port: where the processes meet.
        serves: this process opens the port; False: it is open already.
        own_gpu: each process sees its own GPU alone, as srun can arrange it.
        attempt: how often torchrun has started the group again.
    """

    rank: int
    world_size: int
    local_rank: int
    node: int
    host: str
    port: int
    serves: bool
    own_gpu: bool = False
    attempt: int = 0

    def __str__(self) -> str:
        return f"process {self.rank} of {self.world_size}"


def find_place(env: Mapping[str, str]) -> Optional[Place]:
    """The place that the environment gives this process; None: it runs alone.

    torchrun's variables come first, then those of a step of srun. An sbatch script that calls Python without
    srun is one process, whatever it has reserved.

    Raises:
        ProcessError: names a variable that is missing, or that holds no fitting number.
    """
    if "RANK" in env or "WORLD_SIZE" in env:
        place = _of_torchrun(env)
    elif "SLURM_STEP_NUM_TASKS" in env and "SLURM_PROCID" in env:
        place = _of_srun(env)
    else:
        return None
    for name, value, count in (
        ("rank", place.rank, place.world_size),
        ("local rank", place.local_rank, place.world_size),
    ):
        if value >= count:
            raise ProcessError(
                f"This process has {name} {value}, and there are {count} processes; check the launcher."
            )
    return place if place.world_size > 1 else None


def _of_torchrun(env: Mapping[str, str]) -> Place:
    missing = [name for name in TORCHRUN if name not in env]
    if missing and env.get("WORLD_SIZE") != "1":
        there = ", ".join(name for name in TORCHRUN if name in env)
        raise ProcessError(
            f"The environment has {there} and lacks {', '.join(missing)}: several processes need all of "
            "them. Start with torchrun, which sets them, or unset what is there to run one process."
        )
    rank = _number(env, "RANK", "0")
    return Place(
        rank=rank,
        world_size=_number(env, "WORLD_SIZE"),
        local_rank=_number(env, "LOCAL_RANK", "0"),
        node=_number(env, "GROUP_RANK", "0"),
        host=env.get("MASTER_ADDR", ""),
        port=_number(env, "MASTER_PORT", "0"),
        serves=rank == 0 and env.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        attempt=_number(env, "TORCHELASTIC_RESTART_COUNT", "0"),
    )


def _of_srun(env: Mapping[str, str]) -> Place:
    rank = _number(env, "SLURM_PROCID")
    nodes = next(
        (env[n] for n in ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST") if n in env), ""
    )
    host = env.get("MASTER_ADDR") or first_host(nodes)
    if not host:
        raise ProcessError("srun's variables hold no SLURM_STEP_NODELIST; set MASTER_ADDR to the first host.")
    job = _number(env, "SLURM_JOB_ID", "0") + _number(env, "SLURM_STEP_ID", "0")
    return Place(
        rank=rank,
        world_size=_number(env, "SLURM_STEP_NUM_TASKS"),
        local_rank=_number(env, "SLURM_LOCALID", "0"),
        node=_number(env, "SLURM_NODEID", "0"),
        host=host,
        port=_number(env, "MASTER_PORT", str(20000 + job % 12000)),  # below the ports that systems hand out
        serves=rank == 0,
        own_gpu=True,
    )


def first_host(nodelist: str) -> str:
    """First host of a list as SLURM writes it: "gpu[01-04,07],big3" -> "gpu01"."""
    first = re.split(r",(?![^\[]*\])", nodelist)[0]  # commas outside brackets
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _number(env: Mapping[str, str], name: str, default: Optional[str] = None) -> int:
    value = env.get(name, default)
    if value is None or not value.isdecimal():
        raise ProcessError(
            f"The environment variable {name}={value!r} is no number >= 0; check the launcher."
        )
    return int(value)
