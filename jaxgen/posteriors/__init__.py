"""The reference set: posteriors through generators whose answers are known.

    reference = jaxgen.posteriors.get("linear-gaussian-64")
    result = jaxgen.sample(key, reference.posterior)
    result.log_z - reference.log_z

Every posterior is built of the public pieces (a prior, a generator, a condition), so any
sampler can be judged by it. `benchmarks/truth/reference_set.py` scores samplers on the whole
set by the number of gradients that they use.
"""

from jaxgen.posteriors.reference import Modes, ReferencePosterior
from jaxgen.posteriors.registry import get, names

__all__ = ["Modes", "ReferencePosterior", "get", "names"]
