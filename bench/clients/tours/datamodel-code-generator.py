import os
import time
import httpx
import models as api

client = httpx.Client(base_url=os.environ["MODELPRESS_URL"], timeout=300)


def ok(step):
    print(f"ok {step}", flush=True)


def upload(path, *names):
    files = [("file", (name, open(os.path.join(os.environ["FILES"], name), "rb"))) for name in names]
    return client.post(path, files=files).raise_for_status().content


def post(path, body):
    content = api.JobRequest.model_validate(body).model_dump_json(exclude_unset=True)
    return client.post(path, content=content, headers={"content-type": "application/json"})


def finish(job_id):
    while True:
        job = api.Job.model_validate_json(client.get(f"/v1/jobs/{job_id}").content)
        if job.finished_at is not None:
            return job
        time.sleep(0.5)


model = api.Model.model_validate_json(upload("/v1/models", "model.onnx")).id
ok("model")
if len(api.Model.model_validate_json(upload("/v1/models", "split.onnx", "weights.bin")).files) == 2:
    ok("two_files")
dataset = api.Dataset.model_validate_json(upload("/v1/datasets", "data.npz")).id
ok("dataset")
request = {
    "type": "quantize",
    "model_id": model,
    "params": {"method": "weight_only", "bits": 8, "format": "qdq"},
    "evaluation": {"dataset_id": dataset, "samples": 32, "latency": {"runs": 5}},
}
if api.JobPlan.model_validate_json(post("/v1/jobs/plan", request).content).size.ratio < 1:
    ok("plan")
job = api.Job.model_validate_json(post("/v1/jobs", request).content)
with client.stream("GET", f"/v1/jobs/{job.id}/events/stream") as stream:
    events = [api.JobEvent.model_validate_json(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
if events[-1].data.status == "succeeded":
    ok("stream")
done = finish(job.id)
if done.result.metrics.size.ratio < 1 and done.effective_params["method"] == "weight_only":
    ok("quantize")
student = api.Model.model_validate_json(upload("/v1/models", "student.onnx")).id
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
distilled = finish(api.Job.model_validate_json(post("/v1/jobs", distill).content).id)
if len(distilled.result.metrics.training.history) == 1:
    ok("distill")
artifact = client.get(f"/v1/jobs/{job.id}/artifacts/model.onnx")
if len(artifact.content) == done.result.artifacts[0].size_bytes:
    ok("download")
if api.Problem.model_validate_json(post("/v1/jobs", {**request, "model_id": "mdl_none"}).content).errors:
    ok("refusal")
if len(api.JobPage.model_validate_json(client.get("/v1/jobs").content).data) >= 2:
    ok("list")
for news in ["field", "method", "status", "type"]:
    page = api.JobPage.model_validate_json(httpx.get(f"{os.environ['FUTURE_URL']}/{news}/v1/jobs").content)
    if page.data[0].status:
        ok(f"new_{news}")
