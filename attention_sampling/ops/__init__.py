"""The mathematics of attention sampling: pure functions on ``keras.ops``."""
