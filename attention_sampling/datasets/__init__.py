"""Data sets of the examples: files on disk -> images and labels, without Keras."""
