import keras
import numpy as np
import pytest

from attention_sampling.experiments.profiling import profile_training


def test_measures_and_writes_a_trace(tmp_path):
    if keras.backend.backend() != "tensorflow":
        with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
            profile_training(None, None, tmp_path)
        return
    import tensorflow as tf

    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Conv2D(32, 3, padding="same"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    images, targets = np.zeros((20, 64, 64, 3), "float32"), np.zeros((20, 1), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((images, targets)).batch(8)
    cost = profile_training(model, dataset, tmp_path, steps=3)
    # The convolution's output, kept for its gradient: 64 x 64 x 32 floats a sample.
    assert cost.bytes_per_sample >= 64 * 64 * 32 * 4
    assert cost.peak_bytes > 8 * cost.bytes_per_sample
    assert 0 < cost.seconds_per_sample < 60
    assert cost.device in ("CPU:0", "GPU:0")
    assert int(model.optimizer.iterations) == 5
    traces = list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    assert len(traces) == 1
    assert traces[0].stat().st_size > 0
