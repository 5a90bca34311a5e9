import io
import os
import time
from modelpress_client import Client
from modelpress_client.api.datasets import create_dataset
from modelpress_client.api.jobs import create_job, download_job_artifact, get_job, list_jobs, plan_job, stream_job_events
from modelpress_client.api.models import create_model
from modelpress_client.models import DatasetForm, DistillJobRequest, ModelForm, Problem, QuantizeJobRequest
from modelpress_client.types import File

client = Client(base_url=os.environ["MODELPRESS_URL"], timeout=300)


def ok(step):
    print(f"ok {step}", flush=True)


def file(name):
    with open(os.path.join(os.environ["FILES"], name), "rb") as opened:
        return File(payload=io.BytesIO(opened.read()), file_name=name, mime_type="application/octet-stream")


def upload(*names):
    return create_model.sync(client=client, body=ModelForm(file=[file(name) for name in names])).id


def finish(job_id):
    while True:
        job = get_job.sync(job_id, client=client)
        if job.finished_at is not None:
            return job
        time.sleep(0.5)


model = upload("model.onnx")
ok("model")
if upload("split.onnx", "weights.bin"):
    ok("two_files")
dataset = create_dataset.sync(client=client, body=DatasetForm(file=file("data.npz"))).id
ok("dataset")


def quantize(model_id):
    return QuantizeJobRequest.from_dict(
        {
            "type": "quantize",
            "model_id": model_id,
            "params": {"method": "weight_only", "bits": 8, "format": "qdq"},
            "evaluation": {"dataset_id": dataset, "samples": 32, "latency": {"runs": 5}},
        }
    )


if plan_job.sync(client=client, body=quantize(model)).size.ratio < 1:
    ok("plan")
job = create_job.sync(client=client, body=quantize(model))
if '"status":"succeeded"' in stream_job_events.sync_detailed(job.id, client=client).content.decode():
    ok("stream")
done = finish(job.id)
if done.result.metrics.size.ratio < 1 and done.effective_params["method"] == "weight_only":
    ok("quantize")
distill = DistillJobRequest.from_dict(
    {
        "type": "distill",
        "params": {
            "mode": "offline",
            "teacher_model_id": model,
            "dataset_id": dataset,
            "student": {"model_id": upload("student.onnx")},
            "training": {"epochs": 1, "batch_size": 32},
        },
    }
)
if len(finish(create_job.sync(client=client, body=distill).id).result.metrics.training.history) == 1:
    ok("distill")
artifact = download_job_artifact.sync_detailed(job.id, "model.onnx", client=client)
if len(artifact.content) == done.result.artifacts[0].size_bytes:
    ok("download")
refused = create_job.sync(client=client, body=quantize("mdl_none"))
if isinstance(refused, Problem) and refused.errors:
    ok("refusal")
if len(list_jobs.sync(client=client).data) >= 2:
    ok("list")
for news in ["field", "method", "status", "type"]:
    later = Client(base_url=f"{os.environ['FUTURE_URL']}/{news}")
    if list_jobs.sync(client=later).data[0].status:
        ok(f"new_{news}")
