"""How a run is annealed and tuned: temperatures, step sizes, mass matrices, resampling."""
