"""Do samples depend on how many devices and processes share the chains, and what is gained?

Every row runs in processes of its own: so many simulated CPU devices (`jax_num_cpu_devices`)
in each of so many processes (`jax.distributed`, gloo), the same posterior, key and tile. The
digest covers positions, log-weights, betas and log Z. Seconds are of a second run, compiled
already. With `--weak`, chains grow with the devices.

Simulated devices share the machine's cores: beyond the number of cores nothing can be gained.

With `--scaling` it asks instead how much faster two devices are than one, each of which is held
to one thread (`--xla_cpu_multi_thread_eigen=false`: else one device uses both cores for the
products of large networks). Both run in one process in turns, whole runs of `jaxgen.ais`, so
that what else the machine does meets both; ratios are of neighbours, and of the least times. On a
busy machine devices wait for each other's turn; `ratio_if_nobody_waits` is twice one device's CPU
time over that of two together, which other jobs hardly change, and which is the most that can be
gained.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common

CHILD = """
import hashlib, json, sys, time
import jax
port, processes, index, devices, chains, tile, network, repeats = sys.argv[1:9]
jax.config.update("jax_num_cpu_devices", int(devices))
if int(processes) > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(index))
import numpy as np
import jaxgen
from jaxgen import kernels, schedules
if network == "dcgan":
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(64), jaxgen.load("fashion-mnist/dcgan"),
        jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 3))
    settings = dict(kernel=kernels.HMC(5), betas=schedules.Adaptive(), num_mcmc_steps=1)
else:
    def second(point):
        return point[1:]
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(2), jaxgen.load("toy2d/gan"),
        jaxgen.Operator(np.zeros(1, np.float32), np.float32(0.045), forward=second))
    settings = dict(kernel=kernels.HMC(10), betas=schedules.sigmoid(1000), step_size=0.03)
def run():
    begun = time.perf_counter()
    result = jaxgen.ais(jax.random.key(0), posterior, num_chains=int(chains), tile=int(tile),
                        resample="systematic", **settings)
    position = np.asarray(result.position)
    return time.perf_counter() - begun, result, position
run()
seconds, result, position = min((run() for _ in range(int(repeats))), key=lambda x: x[0])
digest = hashlib.sha256()
for array in (position, np.asarray(result.log_weight), result.history.beta,
              np.float64(result.log_z)):
    digest.update(np.ascontiguousarray(array).tobytes())
print(json.dumps({"digest": digest.hexdigest()[:16], "log_z": result.log_z, "seconds": seconds}))
"""


SCALING = """
import json, statistics, sys, time
import jax
network, chains, tile, temperatures, repeats = sys.argv[1], *map(int, sys.argv[2:6])
jax.config.update("jax_num_cpu_devices", 2)
import jaxgen
from jaxgen import kernels, schedules
if network == "dcgan":
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(64), jaxgen.load("fashion-mnist/dcgan"),
        jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 3))
    step_size = 0.05
else:
    import numpy as np
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(2), jaxgen.load("toy2d/gan"),
        jaxgen.Operator(np.zeros(1, np.float32), np.float32(0.045), forward=lambda x: x[1:]))
    step_size = None
def run(devices):
    begun, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(jaxgen.ais(
        jax.random.key(0), posterior, kernels.HMC(10), schedules.sigmoid(temperatures),
        step_size=step_size, num_chains=chains, tile=tile,
        devices=jax.devices()[:devices]).state)
    return time.perf_counter() - begun, time.process_time() - used
run(1), run(2)
times = [(run(1), run(2)) for _ in range(repeats)]
one, two = zip(*((a[0], b[0]) for a, b in times))
cpu_one, cpu_two = zip(*((a[1], b[1]) for a, b in times))
times = list(zip(one, two))
print(json.dumps({"one_device": round(min(one), 3), "two_devices": round(min(two), 3),
    "ratio_of_least": round(min(one) / min(two), 2),
    "ratio_median": round(statistics.median(a / b for a, b in times), 2),
    "cpu_one_device": round(statistics.median(cpu_one), 3),
    "cpu_two_devices": round(statistics.median(cpu_two), 3),
    "ratio_if_nobody_waits": round(
        2 * statistics.median(cpu_one) / statistics.median(cpu_two), 2),
    "ratios": [round(a / b, 2) for a, b in times]}))
"""


def scaling(network, chains, tile, temperatures, repeats):
    """Two devices of one thread each against one."""
    numbers = map(str, (chains, tile, temperatures, repeats))
    flags = "--xla_cpu_multi_thread_eigen=false"
    done = subprocess.run(
        [sys.executable, "-c", SCALING, network, *numbers],
        env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {"network": network, "chains": chains, "tile": tile, **found}


def run(network, processes, devices, chains, tile, repeats):
    """One row."""
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        port = connection.getsockname()[1]
    children = []
    for index in range(processes):
        numbers = map(str, (port, processes, index, devices, chains, tile))
        command = [sys.executable, "-c", CHILD, *numbers, network, str(repeats)]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    outs = [child.communicate()[0] for child in children]
    assert all(child.returncode == 0 for child in children)
    found = json.loads(outs[0].splitlines()[-1])
    return {
        "network": network,
        "processes": processes,
        "devices": processes * devices,
        "chains": chains,
        "digest": found["digest"],
        "log_z": found["log_z"],
        "seconds": round(found["seconds"], 3),
    }


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--weak", action="store_true", help="chains grow with the devices")
    options.add_argument("--scaling", action="store_true", help="two devices against one")
    options.add_argument("--repeats", type=int, default=3)
    args = options.parse_args()
    if args.scaling:
        cases = [("toy", 2048, 64, 400), ("dcgan", 64, 16, 12)]
        if args.smoke:
            cases, args.repeats = [("toy", 8, 4, 4)], 1
        common.report("devices", scaling=[scaling(*case, args.repeats) for case in cases])
        return
    places = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2)]
    sizes = {"toy": (256, 32), "dcgan": (64, 8)}
    if args.smoke:
        places, sizes, args.repeats = [(1, 1), (1, 2)], {"toy": (8, 4)}, 1
    rows = []
    for network, (chains, tile) in sizes.items():
        for processes, devices in places:
            count = chains * processes * devices if args.weak else chains
            rows.append(run(network, processes, devices, count, tile, args.repeats))
    identical = {
        network: len({row["digest"] for row in rows if row["network"] == network}) == 1
        for network in sizes
    }
    common.report("devices", rows=rows, identical=None if args.weak else identical)


if __name__ == "__main__":
    os.environ.pop("XLA_FLAGS", None)  # the rows choose their devices themselves
    main()
