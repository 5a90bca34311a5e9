import json
import os
import time
import openapi_client as api

client = api.ApiClient(api.Configuration(host=os.environ["MODELPRESS_URL"]))
models, datasets, jobs = api.ModelsApi(client), api.DatasetsApi(client), api.JobsApi(client)


def ok(step):
    print(f"ok {step}", flush=True)


def file(name):
    with open(os.path.join(os.environ["FILES"], name), "rb") as opened:
        return name, opened.read()


def finish(job_id):
    while True:
        job = jobs.get_job(job_id)
        if job.finished_at is not None:
            return job
        time.sleep(0.5)


model = models.create_model([file("model.onnx")]).id
ok("model")
if models.create_model([file("split.onnx"), file("weights.bin")]).id:
    ok("two_files")
dataset = datasets.create_dataset(file("data.npz")).id
ok("dataset")


def quantize(model_id):
    return api.JobRequest(
        api.QuantizeJobRequest(
            type="quantize",
            model_id=model_id,
            params=api.QuantizeParams(api.WeightOnlyParams(method="weight_only", bits=8, format="qdq")),
            evaluation=api.EvaluationOptions(dataset_id=dataset, samples=32, latency=api.LatencyOptions(runs=5)),
        )
    )


if jobs.plan_job(quantize(model)).size.ratio < 1:
    ok("plan")
job = jobs.create_job(quantize(model))
if '"status":"succeeded"' in jobs.stream_job_events(job.id):
    ok("stream")
done = finish(job.id)
if done.result.metrics.size.ratio < 1 and done.effective_params["method"] == "weight_only":
    ok("quantize")
student = models.create_model([file("student.onnx")]).id
distill = {
    "type": "distill",
    "params": {
        "mode": "offline",
        "teacher_model_id": model,
        "dataset_id": dataset,
        "student": {"model_id": student},
        "training": {"epochs": 1, "batch_size": 32},
    },
}
distilled = jobs.create_job(api.JobRequest.from_json(json.dumps(distill)))
if len(finish(distilled.id).result.metrics.training.history) == 1:
    ok("distill")
if len(jobs.download_job_artifact(job.id, "model.onnx")) == done.result.artifacts[0].size_bytes:
    ok("download")
try:
    jobs.create_job(quantize("mdl_none"))
except api.ApiException as refusal:
    if json.loads(refusal.body)["errors"]:
        ok("refusal")
if len(jobs.list_jobs().data) >= 2:
    ok("list")
for news in ["field", "method", "status", "type"]:
    later = api.JobsApi(api.ApiClient(api.Configuration(host=f"{os.environ['FUTURE_URL']}/{news}")))
    if later.list_jobs().data[0].status:
        ok(f"new_{news}")
