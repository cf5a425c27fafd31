"""Generated data sets, for where no real one is at hand."""
