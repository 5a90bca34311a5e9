"""The PyTorch side of bench/compare/products.ts.

Reads one product a line as JSON, {a, b, orientation, seconds}, where a and b are shapes, and answers the milliseconds of processor time
that one run of it takes, one thread.
"""

import json
import sys
import time

import torch

torch.set_num_threads(1)
for line in sys.stdin:
    asked = json.loads(line)
    a, b = torch.randn(*asked["a"]), torch.randn(*asked["b"])
    left = a.t() if asked["orientation"] == "tn" else a
    right = b.t() if asked["orientation"] == "nt" else b
    torch.mm(left, right)
    runs, start = 0, time.process_time()
    while time.process_time() - start < asked["seconds"]:
        torch.mm(left, right)
        runs += 1
    print((time.process_time() - start) * 1000 / runs)
