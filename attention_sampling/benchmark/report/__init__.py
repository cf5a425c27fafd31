"""One page of all that was measured."""
