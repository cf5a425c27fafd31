"""What changes from epoch to epoch."""

import keras

from attention_sampling.checks import check_count, check_share
from attention_sampling.layers import SamplePatches


class ProposalMix(keras.callbacks.Callback):
    """Set the share of the saliency in the proposal at the beginning of every epoch.

    From ``start`` in the first epoch it goes in equal steps to ``end`` in epoch
    ``epochs``, counted from 0, and stays there. At a mix of 0 the cells come from the
    attention alone.

    To go on with a saved model, tell ``fit`` its ``initial_epoch``.

    Args:
        start: mix of the first epoch, from 0 to 1.
        end: mix at last, from 0 to 1. Equal to ``start`` for a constant mix.
        epochs: epochs it takes from one to the other.

    Raises:
        ValueError: a mix outside of 0 to 1; ``epochs`` not positive; in
            training, a model that draws from no proposal.

    Example:

    >>> callback = ProposalMix(start=1.0, end=0.0, epochs=10)
    >>> [round(callback.mix(epoch), 1) for epoch in (0, 1, 4, 10, 20)]
    [1.0, 0.9, 0.6, 0.0, 0.0]
    """

    def __init__(self, start=1.0, end=0.0, epochs=10):
        super().__init__()
        self.start = check_share("start", start)
        self.end = check_share("end", end)
        self.epochs = check_count("epochs", epochs, smallest=1)

    def mix(self, epoch):
        """Return the mix of an epoch, counted from 0."""
        progress = min(epoch / self.epochs, 1.0)
        return self.start + (self.end - self.start) * progress

    def on_epoch_begin(self, epoch, logs=None):
        """Set the mix of the epoch, and refuse a model without a proposal."""
        layers = self._layers()
        if not layers:
            raise ValueError(
                "ProposalMix needs a model that draws from a proposal, as "
                "attention_sampling(proposal=LocalContrast()) makes it. "
                f"Received: model={self.model.name!r}"
            )
        for layer in layers:
            layer.set_mix(self.mix(epoch))

    def _layers(self):
        return [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, SamplePatches)
            # A model may be built in its first step: it shows in the next epoch.
            and (layer.has_proposal or not layer.built)
        ]
