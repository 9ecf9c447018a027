"""Measures inference in ONNX Runtime on the CPU, of a network that the trainer exported; see peer.py.

The variant int8 has 8-bit integers as weights and activations, calibrated on training images.
"""
import tempfile
from pathlib import Path

import onnxruntime

import peer

CALIBRATION_IMAGES = 256


def quantized(path, folder):
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter([feed(session(path), CALIBRATION_IMAGES)])

        def get_next(self):
            return next(self.batches, None)

    prepared, target = str(Path(folder) / "prepared.onnx"), str(Path(folder) / "int8.onnx")
    quant_pre_process(path, prepared)
    quantization.quantize_static(
        prepared, target, Images(), per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    return target


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(network, count):
    return {network.get_inputs()[0].name: peer.images(arguments.network, count)[0]}


def prepare(kind, batch):
    if kind != "inference":
        raise SystemExit("ONNX Runtime does not train")
    inputs = feed(network, batch)
    return lambda: network.run(None, inputs), batch


arguments = peer.arguments(["f32", "int8"])
with tempfile.TemporaryDirectory() as folder:
    path = arguments.onnx if arguments.variant == "f32" else quantized(arguments.onnx, folder)
    network = session(path)
peer.answer(prepare, arguments.seconds)
