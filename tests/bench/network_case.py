"""One network at one size in a process of its own: seconds and memory of a prediction and of a training step, as JSON.

    python tests/bench/network_case.py '{"name": "unet", "side": 256}'

`bench_networks.py` starts it. Memory is what the process held at most during the work above what it held before, so
weights and the optimiser's state are not in it, and gradients are. On a GPU it is what torch had allocated.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from histofold import models
from histofold.models.dice import DiceUnit, set_form


@dataclass(frozen=True)
class Job:
    """What to measure: a network, the side of its square images, and which works on it."""

    name: str
    side: int
    outputs: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    form: str = "auto"
    works: tuple[str, ...] = ("forward", "step")
    batch: int = 1
    device: str = "cpu"
    seconds: float = 3.0

    def build(self) -> nn.Module:
        """The network with random weights, in the DiCE form asked for."""
        torch.manual_seed(0)
        network = models.build(self.name, outputs=self.outputs, **self.options)
        set_form(network, self.form)
        return network


def clock(device: str) -> float:
    """Seconds: of the processor where one thread works (another process does not count), else of the wall."""
    if device != "cpu":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def resident(key: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the most since the last reset) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def before(device: str) -> int:
    """Give back what can be given back and start counting; gives the bytes held now."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return resident("VmRSS")


def after(device: str) -> int:
    """The most bytes held since `before`."""
    return torch.cuda.max_memory_allocated() if device != "cpu" else resident("VmHWM")


def measure(work: Callable[[], Any], job: Job) -> dict[str, float]:
    """Least seconds of some runs and the peak in bytes of one, after a first run that is not counted."""
    work()
    held = before(job.device)
    start = clock(job.device)
    work()
    best = clock(job.device) - start
    peak = after(job.device) - held
    spent, runs = best, 1
    while spent < job.seconds and runs < 50:
        start = clock(job.device)
        work()
        took = clock(job.device) - start
        best, spent, runs = min(best, took), spent + took, runs + 1
    return {"seconds": best, "bytes": float(max(peak, 0))}


def gmac(job: Job) -> float:
    """Multiply-accumulates of one image's convolutions in 10⁹, counted without computing."""
    with torch.device("meta"):
        network = models.build(job.name, outputs=job.outputs, **job.options).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            network(torch.empty(1, 3, job.side, job.side))
    return counter.get_total_flops() / 2e9


def least_traffic(network: nn.Module, width: int) -> float:
    """Bytes that DiCE units must move for one image: read x, write and read the fused planes, write the result."""
    units = [layer for layer in network.modules() if isinstance(layer, DiceUnit)]
    return float(sum((3 * u.in_channels + u.out_channels) * u.size[0] * u.size[1] * width for u in units))


def copy_bandwidth(device: str) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones((1 << 26) if device == "cpu" else (1 << 28), device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        start = clock(device)
        target.copy_(source)
        best = min(best, clock(device) - start)
    return 2 * source.numel() * 4 / best


def works(job: Job, network: nn.Module) -> dict[str, Callable[[], Any]]:
    """A prediction and a training step: forward, cross entropy of every head, backward, AdamW."""
    gpu = job.device != "cpu"
    image = torch.randn(job.batch, 3, job.side, job.side, device=job.device)
    if gpu:
        image = image.contiguous(memory_format=torch.channels_last)
    truth = torch.zeros(job.batch, job.outputs, job.side, job.side, device=job.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)

    def forward() -> None:
        network.eval()
        with torch.inference_mode(), torch.autocast(job.device, torch.bfloat16, enabled=gpu):
            network(image)

    def step() -> None:
        network.train()
        with torch.autocast(job.device, torch.bfloat16, enabled=gpu):
            raw = network(image)
        heads = raw if isinstance(raw, tuple) else (raw,)
        loss = [functional.binary_cross_entropy_with_logits(head.float(), truth) for head in heads]
        torch.stack(loss).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"forward": forward, "step": step, **units_alone(network, job)}


def units_alone(network: nn.Module, job: Job) -> dict[str, Callable[[], Any]]:
    """A prediction and a training step of each DiCE unit by itself, without what lies between them."""
    units = [layer for layer in network.modules() if isinstance(layer, DiceUnit)]
    gpu = job.device != "cpu"

    def inputs() -> Iterator[tuple[DiceUnit, torch.Tensor]]:
        for unit in units:
            yield unit, torch.empty(job.batch, unit.in_channels, *unit.size, device=job.device).normal_()

    pairs = list(inputs()) if any(name.startswith("units") for name in job.works) else []

    def forward() -> None:
        with torch.inference_mode(), torch.autocast(job.device, torch.bfloat16, enabled=gpu):
            for unit, x in pairs:
                unit.eval()(x)

    def step() -> None:
        for unit, x in pairs:
            with torch.autocast(job.device, torch.bfloat16, enabled=gpu):
                out = unit.train()(x.detach().requires_grad_())
            out.sum().backward()

    return {"units forward": forward, "units step": step}


def main() -> None:
    """Measure the job of the command line and print the result."""
    values = json.loads(sys.argv[1])
    job = Job(**{**values, "works": tuple(values.get("works", ("forward", "step")))})
    network = job.build().to(job.device)
    if job.device != "cpu":
        network = network.to(memory_format=torch.channels_last)
    known = works(job, network)
    result: dict[str, Any] = {name: measure(known[name], job) for name in job.works}
    result["parameters"] = sum(value.numel() for value in network.parameters())
    result["gmac"] = gmac(job)
    result["traffic"] = least_traffic(network, 4 if job.device == "cpu" else 2) * job.batch
    print(json.dumps(result))


if __name__ == "__main__":
    main()
