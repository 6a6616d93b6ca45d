"""What a user calls: sampling, annealed importance sampling, evidence bounds, ascent."""
