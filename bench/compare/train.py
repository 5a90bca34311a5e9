"""The PyTorch side of the training comparison: the networks of bench/train-nets.ts, one random batch, cross-entropy, AdamW.

    python bench/compare/train.py NET SECONDS THREADS

Prints samples per second of full steps (forward, backward, update), by the median step, by the fastest one and by processor time, as JSON.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


class Cnn(nn.Sequential):
    def __init__(self, channels=(32, 64), hidden=128):
        layers, source = [], 1
        for target in channels:
            for _ in range(2):
                layers += [nn.Conv2d(source, target, 3, padding=1, bias=False), nn.BatchNorm2d(target), nn.ReLU()]
                source = target
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(source * 49, hidden), nn.ReLU(), nn.Linear(hidden, 10)]
        super().__init__(*layers)


class Student(nn.Sequential):
    def __init__(self):
        convolutions = [nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU()]
        super().__init__(*convolutions, nn.Flatten(), nn.Linear(24 * 49, 10))


class Block(nn.Module):
    def __init__(self, source, target, stride):
        super().__init__()
        self.first = nn.Conv2d(source, target, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(target)
        self.second = nn.Conv2d(target, target, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(target)
        self.shortcut = nn.Identity()
        if source != target:
            self.shortcut = nn.Sequential(nn.Conv2d(source, target, 1, stride, bias=False), nn.BatchNorm2d(target))

    def forward(self, x):
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


class ResNet18(nn.Module):
    def __init__(self, classes=10, width=64):
        super().__init__()
        layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        source = width
        for stage, target in enumerate([width, 2 * width, 4 * width, 8 * width]):
            for block in range(2):
                layers.append(Block(source, target, 2 if stage > 0 and block == 0 else 1))
                source = target
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(source, classes))

    def forward(self, x):
        return self.body(x)


class EncoderLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, length, width = x.shape
        normal = self.norm1(x)
        q, k, v = (f(normal).view(n, length, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
        x = x + self.o(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, layers=4, width=256, heads=8, length=128, vocabulary=8000, classes=10):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, tokens):
        x = self.layers(self.embedding(tokens) + self.positions)
        return self.head(self.norm(x).mean(1))


NETS = {
    "mlp": (Mlp, 128, lambda n: torch.randn(n, 1, 28, 28)),
    "cnn": (Cnn, 128, lambda n: torch.randn(n, 1, 28, 28)),
    "student": (Student, 128, lambda n: torch.randn(n, 1, 28, 28)),
    "resnet18": (ResNet18, 32, lambda n: torch.randn(n, 3, 64, 64)),
    "transformer": (Transformer, 32, lambda n: torch.randint(8000, (n, 128))),
}


def main(name, seconds, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    build, batch, inputs = NETS[name]
    model = build()
    x, labels = inputs(batch), torch.randint(10, (batch,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step():
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        return (time.perf_counter() - start) * 1000

    def steps(limit):
        times, end = [], time.perf_counter() + limit
        while len(times) < 3 or time.perf_counter() < end:
            times.append(step())
        return times

    steps(seconds / 3)
    cpu = time.process_time()
    times = sorted(steps(seconds))
    cpu_ms = (time.process_time() - cpu) * 1000 / len(times)
    ms = {"median": times[len(times) // 2], "fastest": times[0], "cpu": cpu_ms}
    print(json.dumps({name: 1000 * batch / value for name, value in ms.items()}))


main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
