"""Training steps and their bare networks."""
