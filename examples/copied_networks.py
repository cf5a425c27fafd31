"""Begin a training with the networks of another one."""

import keras

from attention_sampling.callbacks import check_model_file


def copy_networks(path):
    """Return what gives a new model the networks of another run's model."""

    def refuse(name, error):
        raise ValueError(
            f"{path} has no {name} network like the one to be trained. Expected: the "
            "model.keras of a run of this example with the same --block-strides. "
            f"Received: {error}"
        ) from error

    check_model_file(path)
    donor = keras.saving.load_model(path, compile=False)
    weights = {}
    for name in ("attention", "feature"):
        try:
            weights[name] = donor.get_layer(name).get_weights()
        except ValueError as error:
            refuse(name, error)

    def copy(model):
        for name, values in weights.items():
            try:
                model.get_layer(name).set_weights(values)
            except ValueError as error:
                refuse(name, error)

    return copy
