"""Data sets that are generated where no published one is at hand."""
