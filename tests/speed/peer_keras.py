"""Measures Keras on TensorFlow on the CPU; see peer.py.

For inference, the batch normalization is part of the convolutions, as in the files that the trainer exports. The
images are in memory, normalized and not augmented.
"""
import os
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import keras
import numpy as np
import tensorflow as tf
from keras import layers

import peer


def normalized_block(x, channels, pool=False):
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
    if pool:
        x = layers.MaxPooling2D()(x)
    return layers.ReLU()(layers.BatchNormalization(scale=False)(x))


def block(x, channels, pool=False):
    x = layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
    return layers.MaxPooling2D()(x) if pool else x


def residual(x, block):
    channels = x.shape[-1]
    return layers.Add()([x, block(block(x, channels), channels)])


def network(name, block):
    """Returns the network of a preset of the trainer, crates/trainer/presets."""
    if name == "convnet":
        return keras.Sequential([
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
            layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(peer.CLASSES)])
    x = pixels = keras.Input((32, 32, 3))
    if name == "vgg":
        for channels in (64, 128, 256):
            x = block(block(x, channels), channels, pool=True)
        return keras.Model(pixels, layers.Dense(peer.CLASSES)(layers.Flatten()(x)))
    x = residual(block(block(x, 64), 128, pool=True), block)
    x = residual(block(block(x, 256, pool=True), 512, pool=True), block)
    x = layers.Dense(peer.CLASSES, use_bias=False)(layers.GlobalMaxPooling2D()(x))
    return keras.Model(pixels, layers.Rescaling(1 / 8)(x))


def prepare_training(batch):
    model = network(arguments.network, normalized_block)
    peer.check_parameters(arguments.network, sum(weight.numpy().size for weight in model.trainable_weights))
    if arguments.network == "convnet":
        # Label smoothing needs one-hot targets.
        optimizer, smoothing = keras.optimizers.Adam(1e-3), 0.0
    else:
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
        smoothing = 0.1
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing))
    pixels, labels = images(2048)
    labels = keras.utils.to_categorical(labels, peer.CLASSES)

    def fit(batches):
        rows = np.resize(np.arange(len(pixels)), batches * batch)
        inputs, targets = pixels[rows], labels[rows]

        def call():
            model.fit(inputs, targets, batch_size=batch, epochs=1, verbose=0)

        return call

    def seconds(call):
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    # An epoch that takes as long as a measurement, since its start is slow. The first call compiles.
    few = 4
    call = fit(few)
    call()
    batches = max(few, int(few * arguments.seconds / seconds(call)))
    return fit(batches), batches * batch


def prepare_inference(batch):
    model = network(arguments.network, block)
    classify = tf.function(lambda pixels: model(pixels, training=False))
    pixels = tf.constant(images(batch)[0])
    return lambda: classify(pixels).numpy(), batch


def images(count):
    pixels, labels = peer.images(arguments.network, count)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels


def prepare(kind, batch):
    return prepare_training(batch) if kind == "train" else prepare_inference(batch)


arguments = peer.arguments(["plain"])
tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
tf.config.threading.set_inter_op_parallelism_threads(1)
keras.utils.set_random_seed(1)
peer.answer(prepare, arguments.seconds)
