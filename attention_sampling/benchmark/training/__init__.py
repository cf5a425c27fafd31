"""Training on Megapixel MNIST by several methods."""
