"""The mathematics of attention sampling: pure functions on ``keras.ops``."""

# First of all: once Keras is there the layers are registered, and they need these modules.
import keras as keras
