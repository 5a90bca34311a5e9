"""Writes ONNX's backend node corpus into a folder: python models.py FOLDER SHARD/SHARDS LIMIT FORMS     (needs numpy and onnx)

Every case gives up to three models: `plain`, as the corpus has it, all operands inputs; `tail`, all operands but the first made
initializers, so that products and convolutions have weights; `head`, the first made an initializer and the others inputs, as tables of
Gather are. Beside each model stand the case's own inputs, when NumPy can store them (`feeds.npz`), and eight samples of the same kind
(`data.npz`, a leading sample axis). `index.json` lists them. With a LIMIT above 0, that many models spread evenly over the shard.
"""
import json
import os
import sys
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

SAMPLES = 8
KNOWN_OPSET, KNOWN_IR = 25, 12
MAX_STEERING = 8
STORABLE = {np.dtype(kind) for kind in ("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 ?").split()}


def is_storable(value):
    return isinstance(value, (np.ndarray, np.generic)) and np.asarray(value).dtype in STORABLE


def feeds_of(case):
    """The arrays of the case's first data set by input name; None for what is no array."""
    values = case.data_sets[0][0] if case.data_sets else []
    names = [value.name for value in case.model.graph.input]
    return dict(zip(names, values)) if len(names) == len(values) else None


def bound(case, feeds, form):
    """A copy of the model in which operands are initializers, and what is left to feed; None when the case has no such form."""
    if form == "plain":
        return case.model, feeds
    inputs = list(case.model.graph.input)
    if feeds is None or len(inputs) < 2 or len(case.model.graph.node) == 0:
        return None
    constant = [value.name for value in (inputs[1:] if form == "tail" else inputs[:1])]
    if not all(isinstance(feeds[name], (np.ndarray, np.generic)) for name in constant):
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    # Initializers need not be inputs from version 4 on.
    model.ir_version = max(model.ir_version, 4)
    del model.graph.input[:]
    model.graph.input.extend(value for value in inputs if value.name not in constant)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(feeds[name]), name) for name in constant)
    lower_opset(model)
    return model, {name: value for name, value in feeds.items() if name not in constant}


def lower_opset(model):
    """Operator sets that onnxruntime does not know yet become the newest it does where all operators are in that one too."""
    for opset in model.opset_import:
        if opset.domain == "" and opset.version > KNOWN_OPSET:
            since = [onnx.defs.get_schema(node.op_type, opset.version).since_version for node in model.graph.node if node.domain == ""]
            if max(since, default=1) <= KNOWN_OPSET:
                opset.version = KNOWN_OPSET
                model.ir_version = min(model.ir_version, KNOWN_IR)


def samples_of(feeds):
    """Samples like the case's own: the first float array of some size is jittered by a tenth, since others may be scales or ratios."""
    rng = np.random.default_rng(1)
    data = {name: np.repeat(np.asarray(value)[None], SAMPLES, 0) for name, value in feeds.items()}
    for name, array in data.items():
        if array.dtype.kind == "f" and array[0].size > MAX_STEERING:
            jitter = 1 + 0.1 * rng.standard_normal(array.shape)
            jitter[0] = 1
            data[name] = (array * jitter).astype(array.dtype)
            break
    return data


def main(folder, shard, limit, forms):
    at, shards = (int(part) for part in shard.split("/"))
    models = []
    for case in collect_testcases(None):
        feeds = feeds_of(case)
        for form in forms.split(","):
            made = bound(case, feeds, form)
            if made:
                models.append((f"{case.name}.{form}", *made))
    models = models[at::shards]
    if 0 < int(limit) < len(models):
        models = [models[i * len(models) // int(limit)] for i in range(int(limit))]
    index = []
    for name, model, feeds in models:
        entry = {"name": name, "ops": [node.op_type for node in model.graph.node], "model": f"{name}.onnx", "feeds": None, "data": None}
        with open(os.path.join(folder, entry["model"]), "wb") as file:
            file.write(model.SerializeToString())
        if feeds and all(is_storable(value) for value in feeds.values()):
            entry["feeds"], entry["data"] = f"{name}.feeds.npz", f"{name}.data.npz"
            np.savez(os.path.join(folder, entry["feeds"]), **{key: np.asarray(value) for key, value in feeds.items()})
            np.savez(os.path.join(folder, entry["data"]), **samples_of(feeds))
        index.append(entry)
    with open(os.path.join(folder, "index.json"), "w") as file:
        json.dump(index, file)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(*sys.argv[1:5])
