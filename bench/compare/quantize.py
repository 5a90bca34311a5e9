"""The side of onnxruntime's Python tools in the comparison of quantizers.

    python bench/compare/quantize.py METHOD DIRECTORY OUTPUT
    python bench/compare/quantize.py run SECONDS COMMAND...

METHOD is a key of METHODS. DIRECTORY has model.onnx and calibration.npz; OUTPUT is the file to write. `run` runs a command, for
SECONDS at most, and prints, as JSON, what it took: seconds of wall and of processor time, and the peak of its resident memory in bytes.
"""

import json
import resource
import subprocess
import sys
import time


def run(seconds, *command):
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr, timeout=float(seconds))
    wall = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"wallS": wall, "cpuS": used.ru_utime + used.ru_stime, "peakBytes": used.ru_maxrss * 1024}))


def has_vnni():
    with open("/proc/cpuinfo") as info:
        return any("vnni" in line for line in info if line.startswith("flags"))


def preprocess(directory, output, opset=None):
    import onnx
    import onnx.version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, prepared = directory + "/model.onnx", output + ".prepared"
    model = onnx.load(source)
    if opset and next(it.version for it in model.opset_import if it.domain in ("", "ai.onnx")) < opset:
        source = output + ".upgraded"
        onnx.save(onnx.version_converter.convert_version(model, opset), source)
    quant_pre_process(source, prepared, auto_merge=True)
    return prepared


def static(opset=None, **settings):
    def quantize(directory, output):
        from onnxruntime.quantization import quantize_static

        quantize_static(preprocess(directory, output, opset), output, reader(directory), **settings)

    return quantize


def reader(directory):
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            arrays = dict(np.load(directory + "/calibration.npz"))
            samples = len(next(iter(arrays.values())))
            inputs = onnx.load(directory + "/model.onnx").graph.input
            ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in inputs}
            # An input without an axis for samples, like a state or a rate, takes a sample as it is.
            cut = lambda name, array, i: array[i : i + 1] if array.ndim == ranks[name] else array[i]
            self.feeds = iter([{name: cut(name, array, i) for name, array in arrays.items()} for i in range(samples)])

        def get_next(self):
            return next(self.feeds, None)

    return Reader()


def best(method):
    from onnxruntime.quantization import CalibrationMethod, QuantType

    return static(
        # Below, a scale for each channel makes a model that is not valid.
        opset=13,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=not has_vnni(),
        calibrate_method=CalibrationMethod[method],
    )


def dynamic(is_best):
    def quantize(directory, output):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        settings = {}
        if is_best:
            # Convolutions would become ConvInteger, which is several times slower than float.
            settings = {
                "op_types_to_quantize": ["MatMul", "Gemm", "Gather", "LSTM", "Attention", "EmbedLayerNormalization"],
                "weight_type": QuantType.QInt8,
                "per_channel": True,
                "reduce_range": not has_vnni(),
            }
        quantize_dynamic(preprocess(directory, output), output, **settings)

    return quantize


def weight_only(bits, block_size):
    def quantize(directory, output):
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        model = onnx.load(directory + "/model.onnx")
        quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=block_size, is_symmetric=False, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(output)

    return quantize


def gptq(directory, output):
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import GPTQWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = onnx.load(directory + "/model.onnx")
    config = GPTQWeightOnlyQuantConfig(calibration_data_reader=reader(directory))
    quantizer = MatMulNBitsQuantizer(
        model, bits=4, block_size=32, is_symmetric=False, accuracy_level=4, algo_config=config
    )
    quantizer.process()
    quantizer.model.save_model_to_file(output)


METHODS = {
    "static-default": lambda: static(),
    "static-minmax": lambda: best("MinMax"),
    "static-percentile": lambda: best("Percentile"),
    "static-entropy": lambda: best("Entropy"),
    "dynamic-default": lambda: dynamic(False),
    "dynamic-best": lambda: dynamic(True),
    "weights-4": lambda: weight_only(4, 32),
    "weights-4-gptq": lambda: gptq,
    "weights-8": lambda: weight_only(8, 128),
}

if sys.argv[1] == "run":
    run(*sys.argv[2:])
else:
    method, directory, output = sys.argv[1:]
    METHODS[method]()(directory, output)
