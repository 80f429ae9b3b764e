"""A worker's peak memory: the same for a small job and for a giant one."""

from pathlib import Path

from bench.report import Figure, at_most, told
from bench.stage import Client, Process, Stage, until_active


async def measure(stage: Stage, quick: bool) -> list[Figure]:
    giant = 200_000 if quick else 1_000_000
    await stage.clear()
    peaks = {}
    for members, prefix in ((1_000, "MEA"), (giant, "MEB")):
        society = await stage.society(members, prefix)
        async with stage.workers(1) as (worker,):
            cycle = Client(stage.port, society.api_key).start_cycle(society, strategy="queued")
            await until_active(stage.owner, cycle["cycleId"], 0.01)
            await stage.clear()
            peaks[members] = _peak(worker)
    return [
        at_most(f"a worker's peak memory after {giant:,} members", peaks[giant], 120, " MiB"),
        told(
            "the same to a worker after 1,000 members (goal: the same)",
            f"{peaks[giant] / peaks[1_000]:.2f} x",
            f"{peaks[1_000]:.1f} MiB after 1,000",
        ),
    ]


def _peak(process: Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
