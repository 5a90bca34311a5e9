#!/bin/sh
# Distills a student from a teacher and takes the result home.
#
#   examples/distill.sh TEACHER.onnx STUDENT.onnx TRAINING.npz [URL]
#
# TRAINING.npz has one array for each input, and `labels`. The student starts from the weights in its file.
# Needs curl and node (for one field of a JSON answer).
set -eu
[ $# -ge 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
url=${4:-http://127.0.0.1:8080}
field() { node -p "JSON.parse(fs.readFileSync(0)).$1"; }
upload() { curl -sS --fail-with-body -F "file=@$2" "$url/v1/$1" | field id; }

teacher=$(upload models "$1")
student=$(upload models "$2")
data=$(upload datasets "$3")

job=$(curl -sS --fail-with-body -H 'content-type: application/json' -d @- "$url/v1/jobs" <<END | field id
{ "type": "distill",
  "params": { "mode": "offline", "teacher_model_id": "$teacher", "dataset_id": "$data",
              "student": { "model_id": "$student", "init": "keep" },
              "loss": { "temperature": 4, "kl_weight": 0.9, "label_weight": 0.1 },
              "training": { "epochs": 10, "batch_size": 128, "validation_split": 0.1 },
              "baseline": true },
  "name": "distilled" }
END
)

# The stream ends when the job does.
curl -sSN "$url/v1/jobs/$job/events/stream" | grep '^data:'

curl -sS "$url/v1/jobs/$job" | field 'result.metrics.training'
curl -sS --fail-with-body -o student.onnx "$url/v1/jobs/$job/artifacts/model.onnx"
curl -sS --fail-with-body -o report.html "$url/v1/jobs/$job/report"
echo "student.onnx and report.html are here"
