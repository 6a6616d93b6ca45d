"""How a run is carried out: its settings, the compiled program, the host's loop, results."""
