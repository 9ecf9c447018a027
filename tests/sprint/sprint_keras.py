"""Trains the preset `sprint` in Keras on TensorFlow and prints the test accuracy: python sprint_keras.py [SEED]"""
import math
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
from keras import layers

from digits import normalized, read

BATCH, PEAK, WARMUP = 192, 0.01, 30


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate rises from PEAK / 25 to PEAK and falls to almost 0, each along half a cosine."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        rising = self.anneal(PEAK / 25, PEAK, step / WARMUP)
        falling = self.anneal(PEAK, PEAK / 25e4, (step - WARMUP) / (self.steps - 1 - WARMUP))
        return keras.ops.where(step < WARMUP, rising, falling)

    def anneal(self, start, end, fraction):
        return end + (start - end) * (1 + keras.ops.cos(math.pi * fraction)) / 2


keras.utils.set_random_seed(int(sys.argv[1]) if len(sys.argv) > 1 else 42)
pixels, labels = read("train")
model = keras.Sequential([
    keras.Input((28, 28, 1)),
    layers.Conv2D(16, 5, activation="relu"), layers.MaxPooling2D(),
    layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
    layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10),
])
rates = OneCycle(-(-len(pixels) // BATCH))
model.compile(
    keras.optimizers.Adam(rates, beta_1=0.7, beta_2=0.9),
    # Keras supports label smoothing for one-hot targets only.
    keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
)
model.fit(normalized(pixels)[..., None], keras.utils.to_categorical(labels), batch_size=BATCH, verbose=0)

pixels, labels = read("t10k")
found = model.predict(normalized(pixels)[..., None], batch_size=1000, verbose=0).argmax(1)
print(f"test {100 * (found == labels).mean():.2f}%")
