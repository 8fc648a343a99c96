"""The networks in PyTorch, and what the libraries for PyTorch share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from problems import STRIDES, Problem
from settings import BATCH
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

Call = Callable[[], dict[str, Any]]

LAST = "last"
"""The name of the last layer."""


def network(problem: Problem) -> nn.Sequential:
    """Return the network of a problem, in evaluation mode."""
    *hidden, (kernel, _) = problem.layers
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (weight, _) in enumerate(hidden):
        if weight.ndim == 4:
            stride, (_, _, read, given) = STRIDES[i], weight.shape
            # Where the side is even, a stride of 2 is padded at the end alone.
            border = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
            parts[f"pad{i}"] = nn.ZeroPad2d(border)
            parts[f"layer{i}"] = nn.Conv2d(read, given, 3, stride)
        else:
            parts[f"layer{i}"] = nn.Linear(*weight.shape)
        parts[f"act{i}"] = nn.ReLU() if problem.activation == "relu" else nn.Tanh()
    if problem.x.ndim == 4:
        parts["mean"] = nn.AdaptiveAvgPool2d(1)
        parts["flat"] = nn.Flatten()
    parts[LAST] = nn.Linear(*kernel.shape)
    model = nn.Sequential(parts)
    weights = [part for layer in problem.layers for part in layer]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(to_torch(value)))
    return model.eval()


def to_torch(value: np.ndarray) -> np.ndarray:
    """Return a kernel or bias in PyTorch's order: what a layer gives comes first."""
    axes = (3, 2, 0, 1) if value.ndim == 4 else tuple(reversed(range(value.ndim)))
    return np.ascontiguousarray(value.transpose(axes))


def rows_from_torch(rows: torch.Tensor, problem: Problem) -> np.ndarray:
    """Return rows ``(m, p)`` over the parameters of a dense network in the order of problems."""
    parts, start = [], 0
    rows = rows.detach().numpy()
    for kernel, bias in problem.layers:
        i, o = kernel.shape
        kernels = rows[:, start : start + i * o].reshape(-1, o, i).transpose(0, 2, 1)
        start += i * o
        parts += [kernels.reshape(len(rows), -1), rows[:, start : start + len(bias)]]
        start += len(bias)
    return np.concatenate(parts, axis=1)


def tensors(x: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs, channels first, and labels."""
    inputs = torch.from_numpy(x)
    return inputs.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else inputs, torch.from_numpy(y)


def train_tensors(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the training examples."""
    return tensors(problem.x, problem.y)


def query_tensors(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the queries."""
    return tensors(problem.queries, problem.query_labels)


def loader(arrays: Sequence[torch.Tensor], batch: int = BATCH) -> DataLoader:
    """Return batches in a fixed order."""
    return DataLoader(TensorDataset(*arrays), batch_size=batch, shuffle=False)


def checkpoint(model: nn.Module, folder: Path) -> str:
    """Write the weights to a file, for libraries that read them from one."""
    path = folder / "weights.pt"
    torch.save(model.state_dict(), path)
    return str(path)
