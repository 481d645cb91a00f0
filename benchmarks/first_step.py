"""Seconds from starting Python to the end of the first training step: python benchmarks/first_step.py

The network of ``gpunet train``: 64-256-256-10, dropout 0.2, Adam, batch 32. Imports, compiling, and building the model
are included. Cold: with empty caches of compiled code. Warm: a second process with the same caches.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from environment import as_installed, cores, parse, parser, write
from peers import PEERS, installed

PEERS_HERE = ("gpunet", "torch", "compile", "jax")
CODE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from peers import train
from problems import CASES, make_problem
problem = make_problem(CASES["digits"], 32, batches=1)
loss = train(sys.argv[2], replace(problem, dropout=CASES["digits"].dropout)).step(0)
float(loss)  # waits for it
print(time.time())
"""


def seconds(peer: str, cache: str) -> float:
    """Until the step is done; the interpreter's end is not counted."""
    caches = {"GPUNET_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache, "JAX_COMPILATION_CACHE_DIR": cache}
    caches |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    arguments = [sys.executable, "-P", "-c", CODE, str(Path(__file__).parent), peer]
    start = time.time()
    done = subprocess.run(arguments, env=as_installed() | caches, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1]) - start


def main() -> None:
    options = parser("Time to the end of the first training step.", rounds=5)
    options.add_argument("--threads", type=int, default=cores(), help="of all peers; default: all cores")
    options = parse(options)
    names = [name for name in PEERS if name in PEERS_HERE and name in installed()]
    times: dict[str, dict[str, list[float]]] = {name: {"cold": [], "warm": []} for name in names}
    for r in range(options.rounds + 1):
        for name in names:
            with tempfile.TemporaryDirectory() as cache:
                taken = {state: seconds(name, cache) for state in ("cold", "warm")}
            for state, t in taken.items() if r else ():  # the first round writes bytecode and fills the file cache
                times[name][state].append(t)
    rows = []
    for name, states in times.items():
        of = {state: {"min": min(t), "median": median(t)} for state, t in states.items()}
        rows.append({"name": name} | of)
        print(name.ljust(10), *(f"{state} {t['min']:.2f} s ({t['median']:.2f})  " for state, t in of.items()))
    write(options, rows)


if __name__ == "__main__":
    main()
