"""The peak of memory of a command, whatever the process that starts it has held itself."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

#: A process that runs the command and writes what it took. Linux counts the memory of the process
#: that forks as the child's until the child's own program starts; this one is small.
_BETWEEN = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


@dataclass(frozen=True)
class Ended:
    """A command that succeeded: what it printed, how long it ran, its peak of memory."""

    stdout: str
    seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, peak {self.peak_bytes / 1e9:.2f} GB"


def run_measured(command: list[str], folder: Path, environment: dict[str, str]) -> Ended:
    """Run a command to its end; ``folder`` is for the measure."""
    start = time.monotonic()
    measure = folder / "peak_memory.txt"
    done = subprocess.run(
        [sys.executable, "-c", _BETWEEN, str(measure), *command],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    kilobytes = int(measure.read_text())
    return Ended(done.stdout, time.monotonic() - start, kilobytes * 1024)
