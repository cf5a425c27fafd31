"""Time and memory a sample of each method."""
