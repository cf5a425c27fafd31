"""Reading images from disk."""
