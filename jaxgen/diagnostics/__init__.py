"""Whether a run can be trusted: convergence, calibration, moments, export to ArviZ."""

from jaxgen.diagnostics.convergence import (
    Diagnosis,
    diagnose,
    effective_sizes,
    split_rhat,
    symmetries,
)

__all__ = ["Diagnosis", "diagnose", "effective_sizes", "split_rhat", "symmetries"]
