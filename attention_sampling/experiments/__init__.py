"""The paper's experiments, measured again: networks, methods, training, cost and report."""
