"""The preset `sprint` in Keras on TensorFlow: python sprint_keras.py [SEED]. Prints its test accuracy."""
import math
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
from keras import layers

from digits import normalized, read

BATCH, HIGHEST, RISE = 192, 0.01, 30


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Up along half a cosine from 1/25, and down to almost 0 along another."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        up = self.between(HIGHEST / 25, HIGHEST, step / RISE)
        down = self.between(HIGHEST, HIGHEST / 25e4, (step - RISE) / (self.steps - 1 - RISE))
        return keras.ops.where(step < RISE, up, down)

    def between(self, start, end, part):
        return end + (start - end) * (1 + keras.ops.cos(math.pi * part)) / 2


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
    # Of targets that are numbers, Keras smooths none.
    keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
)
model.fit(normalized(pixels)[..., None], keras.utils.to_categorical(labels), batch_size=BATCH, verbose=0)

pixels, labels = read("t10k")
found = model.predict(normalized(pixels)[..., None], batch_size=1000, verbose=0).argmax(1)
print(f"test {100 * (found == labels).mean():.2f}%")
