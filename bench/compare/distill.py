"""The PyTorch side of bench/compare/distill.ts: a whole distillation of the small student as a plain script.

    python bench/compare/distill.py FOLDER EPOCHS THREADS

FOLDER has teacher.onnx, training.npz and test.npz. Reads them, asks the teacher once about all images, trains the student with the settings
of the job, judges every epoch on a tenth of the images, and the best one, as the teacher, on the test images. Prints JSON.
"""

import copy
import json
import sys
import time
from os.path import join

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

BATCH, TEMPERATURE = 128, 4.0


def teacher_of(path):
    """The network `cnn([16, 32], 64)` of test/support/networks.ts with the weights of the file."""
    layers, source = [], 1
    for target in (16, 32):
        for _ in range(2):
            layers += [nn.Conv2d(source, target, 3, padding=1, bias=False), nn.BatchNorm2d(target), nn.ReLU()]
            source = target
        layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10))
    values = {value.name: torch.tensor(numpy_helper.to_array(value)) for value in onnx.load(path).graph.initializer}
    with_values = [layer for layer in model if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))]
    for i, layer in enumerate(with_values):
        kind = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.Linear: "fc"}[type(layer)]
        for name, own in [*layer.named_parameters(), *layer.named_buffers()]:
            if name != "num_batches_tracked":
                own.data.copy_(values[f"{kind}{i}.{name}"])
    return model.eval()


def student():
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 49, 10)
    )


@torch.no_grad()
def answers(model, x):
    return torch.cat([model(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])


def top1(model, x, labels):
    return (answers(model, x).argmax(1) == labels).float().mean().item()


def main(folder, epochs, threads):
    started = time.perf_counter()
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    teacher = teacher_of(join(folder, "teacher.onnx"))
    training, test = (np.load(join(folder, f"{name}.npz")) for name in ("training", "test"))
    x, labels = torch.from_numpy(training["x"]), torch.from_numpy(training["labels"])
    taught = answers(teacher, x)
    order = torch.randperm(len(x))
    held = len(x) // 10
    validation, learned = order[:held], order[held:]
    model, best = student(), (-1.0, None)
    steps = len(learned) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.005, total_steps=epochs * steps)
    seconds = 0.0
    for _ in range(epochs):
        epoch = time.perf_counter()
        order = learned[torch.randperm(len(learned))]
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            logits = model(x[batch])
            soft = F.log_softmax(taught[batch] / TEMPERATURE, 1)
            kl = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), soft, log_target=True, reduction="batchmean")
            loss = 0.9 * TEMPERATURE**2 * kl + 0.1 * F.cross_entropy(logits, labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - epoch
        metric = top1(model, x[validation], labels[validation])
        if metric > best[0]:
            best = (metric, copy.deepcopy(model.state_dict()))
    model.load_state_dict(best[1])
    test_x, test_labels = torch.from_numpy(test["x"]), torch.from_numpy(test["labels"])
    accuracy = {name: top1(it, test_x, test_labels) for name, it in (("student", model), ("teacher", teacher))}
    torch.save(model.state_dict(), join(folder, "student.pt"))
    wall = time.perf_counter() - started
    print(json.dumps({**accuracy, "samples_per_second": epochs * steps * BATCH / seconds, "own_seconds": wall}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
