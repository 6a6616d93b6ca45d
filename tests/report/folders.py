"""Folders of runs for the tests of the report, made without a sampler."""

import numpy as np

from jaxgen import report
from jaxgen.report import output_folder

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


def moving_spots(z, size, channels):
    """Images `[..., size, size, channels]` of a spot whose place is in the first two latents."""
    y, x = np.mgrid[:size, :size] / size
    place = 0.5 + 0.12 * z[..., :2, None, None]
    square = (x - place[..., 0, :, :]) ** 2 + (y - place[..., 1, :, :]) ** 2
    return (np.exp(-square / 0.02)[..., None] * np.ones(channels)).astype(np.float32)


def make(
    path,
    *,
    names=("spot",),
    chains=8,
    draws=16,
    size=14,
    channels=1,
    apart=0.0,
    noise=False,
    ess=0.6,
    steps=12,
    more=None,
    wide=np.float32,
    entry=None,
    **summary,
):
    """A run's folder with draws from N(0, I), or from chains that stay `apart`."""
    rng = np.random.default_rng(0)
    arrays, runs = {}, []
    for name in names:
        z = rng.normal(size=(chains, draws, 12)) + apart * rng.normal(size=(chains, 1, 12))
        image = moving_spots(z, size, channels)
        if noise:
            image = rng.random(image.shape, np.float32)
        beta = np.geomspace(1e-3, 1, steps)
        arrays |= {
            f"{name}/position": z,
            f"{name}/image": image,
            f"{name}/weights": np.full(chains, 1 / chains),
            f"{name}/history/beta": beta,
            f"{name}/history/acceptance_rate": 0.6 + 0.3 * beta,
            f"{name}/history/step_size": 0.1 / beta,
            f"{name}/history/ess": np.full(steps, ess * chains),
            f"{name}/history/log_z": -9 * beta,
        }
        figure = {"log_z": -9.0, "log_z_standard_error": 0.1, "ess": ess * chains}
        figure |= {"num_ancestors": chains, "acceptance_rate": 0.8, "num_divergent": 0}
        figure |= {"exactness": "exact", "notes": ["said by the run"], **(entry or {})}
        runs.append({"name": name, "label": f"label of {name}", **figure})
    arrays |= more or {}
    data = {
        "format": output_folder.FORMAT,
        "command": "sample",
        "arguments": {"seed": 3},
        "models": [],
    }
    data |= {"runs": runs, "seconds": 1.5, "versions": {"jax": "1"}, "device": "cpu"}
    data |= {"files": ["draws.safetensors", "summary.json"], **summary}
    with output_folder.writing(path) as place:
        arrays = {
            k: np.asarray(v, wide if k in (more or {}) else np.float32) for k, v in arrays.items()
        }
        output_folder.write_arrays(place / "draws.safetensors", arrays, {})
        output_folder.write_json(place / "summary.json", data)
    return path


def verdicts(path):
    return report.examine(report.read(path))[0].verdicts
