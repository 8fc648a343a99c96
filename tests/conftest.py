"""What every test shares: a quiet TensorFlow, two logical devices, one seed, no network."""

from __future__ import annotations

import gc
import os
import random
import re
import socket
from collections.abc import Iterator
from pathlib import Path

# Read once, when TensorFlow is imported. Operations of tests are so small that handing them to
# other threads costs more than they do, and each core has a process of its own.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import pytest
import tensorflow as tf

LOGICAL_DEVICES = 2
FIRST = ("test_documentation.py", "test_tutorials_run.py")
"""Files that take longest: begun last, one process would be at them when the others are done."""
ORDER_VARIABLE = "DEEL_INFLUENCE_TEST_ORDER"
SEED = 0


def pytest_configure() -> None:
    """Draw the order of the tests, and split the processor in two.

    So can placement on a device be seen without a GPU.
    """
    # Traced functions are many small objects that live long: look through them less often.
    gc.set_threshold(50_000, 20, 50)
    # The processes that run the tests inherit it, and agree on the order.
    os.environ.setdefault(ORDER_VARIABLE, str(random.SystemRandom().randrange(10_000)))
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * LOGICAL_DEVICES
    tf.config.set_logical_device_configuration(cpu, parts)
    # On a GPU, TensorFlow rounds the factors of float32 products to ten bits unless told not to.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def pytest_report_header() -> str:
    """Tell how to run the tests in this order again."""
    return f"order of the tests: {ORDER_VARIABLE}={os.environ[ORDER_VARIABLE]}"


@pytest.hookimpl(tryfirst=True)  # before pytest looks which tests are marked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle files, and the tests in each, and mark the tests that `slow_tests.txt` lists."""
    generator = random.Random(int(os.environ[ORDER_VARIABLE]))
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    groups = list(files.values())
    for group in (groups, *groups):
        generator.shuffle(group)
    groups.sort(key=lambda group: group[0].path.name not in FIRST)
    items[:] = [item for group in groups for item in group]
    here = Path(__file__).parent
    lines = (here / "slow_tests.txt").read_text(encoding="utf-8").splitlines()
    listed = re.compile("|".join(f"(?:{line})" for line in lines if not line.startswith("#")))
    for item in items:
        if listed.fullmatch(f"{item.path.relative_to(here).as_posix()}::{item.name}"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed Python, NumPy and TensorFlow before each test, whatever ran before it."""
    keras.utils.set_random_seed(SEED)
    return SEED


@pytest.fixture
def float64() -> Iterator[None]:
    """Build models in float64, so that tolerances can be tight."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    # Keras remembers the policy that it derived from the float type at first use.
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to connect anywhere but to this machine: a test that needs the network is wrong."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address):
            message = f"A test tried to connect to {address}; tests run without a network."
            raise OSError(message)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


def _is_local(address: object) -> bool:
    return isinstance(address, tuple) and address[0] in ("localhost", "127.0.0.1", "::1")
