"""Times models in turns in OpenVINO on one thread: time_openvino.py PREFIX TAG..., the first of which is what others are held against.

Times are those of the processor: what else a machine does counts for none of them.

Reads PREFIX.TAG.onnx and the inputs of PREFIX.npz; prints a row of a Markdown table for each, with the kinds of nodes that OpenVINO executes
in 8 bits and those that only round.
"""
import sys
import time

import numpy as np
import openvino as ov

RUNS = 40
CONFIG = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
}


def info(node, key):
    return str(node.get_rt_info()[key].astype(str)) if key in node.get_rt_info() else ""


def counts(compiled):
    """Nodes that multiply, those of them in 8 bits, and quantizers that stand by themselves."""
    products = eights = quantizers = 0
    for node in compiled.get_runtime_model().get_ordered_ops():
        kind, primitive = info(node, "layerType"), info(node, "primitiveType")
        if kind in ("Convolution", "GroupConvolution", "FullyConnected", "MatMul"):
            products += 1
            eights += primitive.lower().endswith("i8")
        quantizers += kind == "FakeQuantize"
    return products, eights, quantizers


def main():
    prefix, *tags = sys.argv[1:]
    core = ov.Core()
    with np.load(f"{prefix}.npz") as arrays:
        feeds = {name: arrays[name] for name in arrays.files}
    compiled = {tag: core.compile_model(core.read_model(f"{prefix}.{tag}.onnx"), "CPU", CONFIG) for tag in tags}
    requests = {tag: model.create_infer_request() for tag, model in compiled.items()}
    outputs = {}
    for tag, request in requests.items():
        for _ in range(3):
            request.infer(feeds)
        outputs[tag] = [np.array(value) for value in request.results.values()]
    times = {tag: [] for tag in tags}
    for _ in range(RUNS):
        for tag, request in requests.items():
            start = time.process_time()
            request.infer(feeds)
            times[tag].append(time.process_time() - start)
    base = np.median(times[tags[0]])
    for tag in tags:
        signal = sum((a.astype(np.float64) ** 2).sum() for a in outputs[tags[0]])
        noise = sum(((a - b).astype(np.float64) ** 2).sum() for a, b in zip(outputs[tags[0]], outputs[tag]))
        decibels = "" if noise == 0 else f"{10 * np.log10(signal / noise):.1f} dB"
        median = np.median(times[tag])
        products, eights, quantizers = counts(compiled[tag])
        name = prefix.rsplit("/", 1)[-1]
        print(f"| {name} | {tag} | {median * 1e3:.2f} ms | {base / median:.2f}x | {eights} of {products} | {quantizers} | {decibels} |")


main()
