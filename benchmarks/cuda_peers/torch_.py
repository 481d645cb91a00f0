"""PyTorch on a GPU: eager, compiled, and the whole step as one CUDA graph. Adam is its fused kernel everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from peers import torch_
from problems import BETA1, BETA2, EPS, Problem
from race import Contender
from torch.nn.functional import cross_entropy

from cuda_peers import Entrant, NotAvailable, Setting

WARM_UPS = 3  # steps on a side stream before a capture, as in PyTorch's notes on CUDA graphs


def begin(precision: str) -> None:
    """Before contenders are made that are timed together: may products round operands to TF32?

    Earlier compilations are forgotten: after eight for one piece of code PyTorch would give up.
    """
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


class Network:
    """Model, loss and optimizer on a device.

    capturable  the optimizer may be captured; its learning rate is then a tensor, so that it can be set afterwards
    transform   is applied to the function that gives the loss
    """

    def __init__(
        self,
        problem: Problem,
        setting: Setting,
        capturable: bool = False,
        transform: Callable[[Any], Any] = lambda function: function,
    ):
        if setting.device == "cpu" and setting.precision == "tf32":
            raise NotAvailable("a CPU has no TF32")
        self.setting, self.device = setting, torch.device(setting.device)
        with self.device:
            model = torch_.model_of(problem)
        self.parameters = list(model.parameters())
        rate: Any = torch.tensor(problem.learning_rate, device=self.device) if capturable else problem.learning_rate
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=rate, betas=(BETA1, BETA2), eps=EPS, fused=True, capturable=capturable
        )
        kind = self.device.type

        def loss_of(x: Any, y: Any) -> Any:
            return cross_entropy(model(x), y)

        def mixed_loss_of(x: Any, y: Any) -> Any:
            # no cache of cast weights: each is used once, and a captured step has to cast them again
            with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
                return loss_of(x, y)

        self.loss_of = transform(mixed_loss_of if setting.precision == "bfloat16" else loss_of)

    def step(self, x: Any, y: Any) -> Any:
        """One update; -> the loss before it. Gradients are dropped first, so that compiled code reuses their memory."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def set_learning_rate(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    def finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def skipped_graphs() -> int:
    """Compiled pieces that run without a CUDA graph although one was asked for, since ``begin``."""
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


Batches = tuple[list[Any], list[Any]]
_newest: dict[Any, tuple[list[Any], Batches]] = {}
"""By device, the batches there, and the host arrays that they are copies of: contenders share them."""


def batches_of(problem: Problem, device: Any) -> Batches:
    """Inputs and labels on a device, or with None as they are on the host."""
    pairs = [[torch.from_numpy(a) for a in arrays] for arrays in (problem.x, problem.y)]
    if device is None:
        return pairs[0], pairs[1]
    if device not in _newest or _newest[device][0] is not problem.x:
        _newest.pop(device, None)
        xs, ys = ([t.to(device) for t in tensors] for tensors in pairs)
        _newest[device] = (problem.x, (xs, ys))
    return _newest[device][1]


def train(problem: Problem, setting: Setting, transform: Callable[[Any], Any] = lambda function: function) -> Entrant:
    """Eager."""
    network = Network(problem, setting, transform=transform)
    device = network.device
    xs, ys = batches_of(problem, None if setting.host_inputs else device)

    def step(i: int) -> Any:
        if setting.host_inputs:
            return network.step(xs[i].to(device), ys[i].to(device))
        return network.step(xs[i], ys[i])

    return Entrant(Contender(step, network.finish), network.set_learning_rate)


def train_compiled(problem: Problem, setting: Setting) -> Entrant:
    """torch.compile(mode="reduce-overhead"): forward with loss, and backward, each compiled and a CUDA graph."""
    if setting.device == "cpu":
        raise NotAvailable("CUDA graphs, of which the mode reduce-overhead makes use, need a GPU")
    entrant = train(problem, setting, lambda function: compiled(function, "reduce-overhead"))

    def step(i: int) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return entrant.contender.step(i)

    return entrant._replace(contender=entrant.contender._replace(step=step))


def compiled(function: Any, mode: str | None = None) -> Any:
    """For fixed shapes; an error, instead of eager execution, where that fails."""
    return torch.compile(function, fullgraph=True, dynamic=False, mode=mode)


def train_graph(problem: Problem, setting: Setting) -> Entrant:
    """The whole step as one CUDA graph."""
    return captured(problem, setting)


def train_pinned_graph(problem: Problem, setting: Setting) -> Entrant:
    """The same, batches copied from pinned memory while the host goes on."""
    return captured(problem, setting, pinned=True)


def train_compiled_graph(problem: Problem, setting: Setting) -> Entrant:
    """The same, of compiled forward and backward."""
    return captured(problem, setting, transform=compiled)


def captured(
    problem: Problem,
    setting: Setting,
    pinned: bool = False,
    transform: Callable[[Any], Any] = lambda function: function,
) -> Entrant:
    """Forward, loss, backward and update in one torch.cuda.graph; a step copies a batch to its inputs and replays it.

    The loss that a step returns is overwritten by the next one.
    """
    if setting.device == "cpu":
        raise NotAvailable("CUDA graphs need a GPU")
    network = Network(problem, setting, capturable=True, transform=transform)
    xs, ys = batches_of(problem, None if setting.host_inputs else network.device)
    if pinned:
        xs, ys = ([t.pin_memory() for t in tensors] for tensors in (xs, ys))
    x, y = (torch.empty_like(t[0], device=network.device) for t in (xs, ys))
    x.copy_(xs[0])
    y.copy_(ys[0])
    warm_up(network, x, y)
    network.optimizer.zero_grad(set_to_none=True)  # so that the captured backward makes gradients in the graph's memory
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = network.loss_of(x, y)
        loss.backward()
        network.optimizer.step()
    loss = loss.detach()

    def step(i: int) -> Any:
        x.copy_(xs[i], non_blocking=True)
        y.copy_(ys[i], non_blocking=True)
        graph.replay()
        return loss

    return Entrant(Contender(step, network.finish), network.set_learning_rate)


def warm_up(network: Network, x: Any, y: Any) -> None:
    """Some steps on a side stream; then weights and the optimizer's state are what they were, in the same memory."""
    initial = [p.detach().clone() for p in network.parameters]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
        for _ in range(WARM_UPS):
            network.step(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.no_grad():
        for p, start in zip(network.parameters, initial, strict=True):
            p.copy_(start)
            for value in network.optimizer.state[p].values():
                value.zero_()
