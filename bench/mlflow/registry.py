"""The other side of mlflow.ts: registers models as users of MLflow do, and loads what modelpress delivers as they would."""

import json
import sys

import mlflow
import mlflow.onnx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def network(width, seed):
    """A layer of `width` by 10 with a Relu behind it."""
    weight = np.random.RandomState(seed).randn(width, 10).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="linear"), helper.make_node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def register(name):
    """Two versions: one file, and one with external data; the second is the champion."""
    for width, seed, external in [(64, 0, False), (2048, 1, True)]:
        with mlflow.start_run():
            options = {"registered_model_name": name, "save_as_external_data": external}
            mlflow.onnx.log_model(network(width, seed), name="model", **options)
    mlflow.MlflowClient().set_registered_model_alias(name, "champion", "2")
    with mlflow.start_run():
        options = {"registered_model_name": "not-onnx", "pip_requirements": []}
        mlflow.pyfunc.log_model(name="model", python_model=lambda model_input: model_input, **options)


def load(address):
    """What a user gets of a version: its ONNX, its prediction, and what its run says."""
    name, version = address.removeprefix("models:/").split("/")
    client = mlflow.MlflowClient()
    found = client.get_model_version(name, version)
    run = client.get_run(found.run_id)
    proto = mlflow.onnx.load_model(address)
    inputs = np.random.RandomState(7).randn(4, 2048).astype(np.float32)
    loaded = mlflow.pyfunc.load_model(address)
    answer = loaded.predict({"x": inputs})["y"]
    exact = np.maximum(inputs @ numpy_helper.to_array(network(2048, 1).graph.initializer[0]), 0)
    error = answer - exact
    print(
        json.dumps(
            {
                "producer": proto.producer_name,
                "signature": loaded.metadata.signature is not None,
                "sqnr_db": float(10 * np.log10((exact**2).sum() / (error**2).sum())),
                "run_status": run.info.status,
                "metrics": run.data.metrics,
                "params": run.data.params,
                "tags": {k: v for k, v in found.tags.items()},
                "versions": len(client.search_model_versions(f"name = '{name}'")),
                "files": sorted(f.path for f in client.list_artifacts(found.run_id, "model")),
            }
        )
    )


mlflow.set_tracking_uri(sys.argv[1])
{"register": register, "load": load}[sys.argv[2]](sys.argv[3])
