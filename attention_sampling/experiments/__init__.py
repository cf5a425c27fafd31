"""The experiments of the paper: networks, methods of comparison, training and cost."""
