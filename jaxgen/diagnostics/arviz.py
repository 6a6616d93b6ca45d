"""Results for ArviZ: every draw, what is known of it, and what the run was.

ArviZ before 1.0 keeps groups in an `InferenceData`, later ones in xarray's `DataTree`;
`pip install arviz` gives 0.23 on Python 3.11 and 1.x from Python 3.12 on. Groups are the
same xarray datasets in both.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxgen.core.errors import expected
from jaxgen.sampler.results import SampleResult
from jaxgen.target.evaluation import evaluate
from jaxgen.target.posterior import Posterior

__all__ = ["to_arviz"]

_PRIOR_DRAWS = 500


def to_arviz(
    result: SampleResult, posterior: Any = None, *, prior_draws: int = _PRIOR_DRAWS
) -> Any:
    """Return a result of `jaxgen.sample` as ArviZ holds it.

    Args:
      result: with draws kept (`collect=jaxgen.positions`, the default, or `jaxgen.images`).
      posterior: what it was a run on. With it there are also the draws' log densities
        (`lp`, `log_likelihood`), the observation, and draws of the prior.
      prior_draws: how many of those.

    Returns:
      An `arviz.InferenceData`, or an `xarray.DataTree` where ArviZ is 1.0 or newer, with

      - posterior: `z`, and `image` where it was kept; several latents by their names. Draws
        carry the chains' weights, which are equal unless `resample=None`: see `chain_weight`.
      - sample_stats: `acceptance_rate`, `step_size`, `diverging` and `num_divergent`, one
        value a chain repeated for its draws (a run does not keep them by draw), and `lp`.
        `diverging` is False throughout: a proposal that diverges is rejected, and no draw is
        one.
      - log_likelihood: `condition`, the log likelihood of all that was observed: one number
        a draw.
      - observed_data: the condition's `observed`; constant_data: `mask`, `noise`, `label` and
        the annealing's history by temperature, and `chain_weight`.
      - prior: draws of z.
      - attributes: version, exactness, log_z and its standard error, ess, notes.

    Save it by `data.to_netcdf("run.nc")`, or as Zarr by `data.to_datatree().to_zarr("run.zarr")`
    (a tree has `to_zarr` itself).

    Raises:
      InputError: where the result keeps no draws, or arviz is not installed.
    """
    arviz, xarray = _libraries()
    draws = _draws(result)
    chains, count = next(iter(draws.values())).shape[:2]
    groups = {
        "posterior": _dataset(xarray, draws, ("chain", "draw")),
        "sample_stats": _dataset(xarray, _statistics(result, chains, count), ("chain", "draw")),
        "constant_data": _constants(xarray, result, posterior),
    }
    if posterior is not None:
        positions = _positions(result)
        flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *np.shape(x)[2:]), positions)
        found = evaluate(posterior, flat)
        lp = found.log_density.reshape(chains, count)
        likelihood = found.log_likelihood.reshape(chains, count)
        groups["sample_stats"]["lp"] = (("chain", "draw"), lp)
        groups["log_likelihood"] = _dataset(xarray, {"condition": likelihood}, ("chain", "draw"))
        observed = getattr(posterior.condition, "observed", None)
        if observed is not None:
            groups["observed_data"] = _dataset(xarray, {"observed": np.asarray(observed)}, ())
        if prior_draws:
            made = _prior(posterior, prior_draws)
            groups["prior"] = _dataset(xarray, made, ("chain", "draw"))
    attributes = _attributes(result)
    for group in groups.values():
        group.attrs.update(attributes)
    if int(arviz.__version__.split(".")[0]) >= 1:
        tree = xarray.DataTree.from_dict(groups)
        tree.attrs.update(attributes)
        return tree
    return arviz.InferenceData(**groups, attrs=attributes)


def _libraries() -> tuple[Any, Any]:
    try:
        import arviz
        import xarray
    except ImportError as error:
        hint = "pip install 'jaxgen[diagnostics]'"
        raise expected("arviz", "an installed package", "none", hint) from error
    return arviz, xarray


def _positions(result: SampleResult) -> Any:
    kept = result.draws
    return kept["position"] if isinstance(kept, dict) and "position" in kept else kept


def _draws(result: SampleResult) -> dict[str, np.ndarray]:
    """Draws by name, `[C, S, ...]`."""
    chains = len(np.asarray(result.weights))
    named = _named(_positions(result)) if result.draws is not None else {}
    if isinstance(result.draws, dict) and "position" in result.draws:
        named |= {k: np.asarray(v) for k, v in result.draws.items() if k != "position"}
    for name, leaf in named.items():
        if leaf.ndim < 2 or leaf.shape[0] != chains:
            raise expected(f"result.draws: {name}", f"shape [{chains}, S, ...]", list(leaf.shape))
    if not named:
        hint = "Use collect=jaxgen.positions or images, or jaxgen.load_run for a long run"
        raise expected("result", "one with draws kept", "none", hint)
    return named


def _named(tree: object) -> dict[str, np.ndarray]:
    """Return a latent's leaves: z, or z_NAME where there are several."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    if len(flat) == 1:
        return {"z": np.asarray(flat[0][1])}
    return {
        "z_"
        + "_".join(
            str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path
        ): (np.asarray(leaf))
        for path, leaf in flat
    }


def _dataset(xarray: Any, arrays: dict[str, np.ndarray], first: tuple[str, ...]) -> Any:
    """Arrays whose leading dimensions are `first`; the others get names of their own."""
    variables, coordinates = {}, {}
    for name, array in arrays.items():
        array = np.asarray(array)
        own = [f"{name}_dim_{k}" for k in range(array.ndim - len(first))]
        if name in ("image", "observed") and len(own) == 3:
            own = [f"{name}_{axis}" for axis in ("row", "column", "channel")]
        dimensions = (*first, *own)
        variables[name] = (dimensions, array)
        coordinates |= {d: np.arange(n) for d, n in zip(dimensions, array.shape, strict=True)}
    return xarray.Dataset(variables, coordinates)


def _statistics(result: SampleResult, chains: int, count: int) -> dict[str, np.ndarray]:
    def repeated(values: Any, dtype: DTypeLike) -> np.ndarray:
        column = np.broadcast_to(np.asarray(values, dtype), (chains,))
        return np.repeat(column[:, None], count, axis=1)

    return {
        "acceptance_rate": repeated(result.acceptance_rate, np.float64),
        "step_size": repeated(result.step_size, np.float64),
        "diverging": np.zeros((chains, count), bool),
        "num_divergent": repeated(result.num_divergent, np.int64),
    }


def _constants(xarray: object, result: SampleResult, posterior: Posterior) -> Any:
    """Return what is given: of the condition, and how the run came to its draws."""
    arrays = {}
    condition = getattr(posterior, "condition", None)
    for name in ("mask", "noise", "label"):
        value = getattr(condition, name, None)
        if isinstance(value, int | float) or hasattr(value, "dtype"):
            arrays[name] = np.asarray(value)
    made = _dataset(xarray, arrays, ())
    made["chain_weight"] = (("chain",), np.asarray(result.weights, np.float64))
    made = made.assign_coords(chain=np.arange(len(result.weights)))
    for name in result.history._fields:
        column = np.asarray(getattr(result.history, name))
        if column.dtype != bool:
            made[f"history_{name}"] = (("temperature",), column)
    return made


def _prior(posterior: Any, count: int) -> dict[str, np.ndarray]:
    """Draws of the prior, in the chains' coordinates, as one chain."""
    sample = getattr(posterior.prior, "sample", None)
    if sample is None:
        return {}
    keys = jax.random.split(jax.random.key(0), count)
    return {name: leaf[None] for name, leaf in _named(jax.vmap(sample)(keys)).items()}


def _attributes(result: SampleResult) -> dict[str, Any]:
    """Return what NetCDF can hold: numbers and texts."""
    from jaxgen.core.version import __version__

    return {
        "inference_library": "jaxgen",
        "inference_library_version": __version__,
        "exactness": result.exactness,
        "log_z": float(result.log_z),
        "log_z_standard_error": float(result.log_z_standard_error),
        "ess_of_weights": float(result.ess),
        "num_lineages": int(result.num_lineages),
        "tile": int(result.tile),
        "notes": "\n".join(result.notes),
    }
