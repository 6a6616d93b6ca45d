"""What is sampled: priors, frozen networks, conditions, the posterior, and the path to it."""
