from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.utils.devices import check_device
from deel_influence.utils.memory import (
    available_bytes,
    bytes_to_hold,
    human_bytes,
    memory_limit,
    working_bytes,
)
from deel_influence.utils.progress import progress_bar


def test_a_bar_is_quiet_where_there_is_no_terminal(capsys):
    assert list(progress_bar(range(3), "Working")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_verbose_one_shows_a_bar_and_two_a_line(capsys):
    list(progress_bar(range(3), "Working", verbose=1))
    assert "Working" in capsys.readouterr().err
    list(progress_bar(range(3), "Working", verbose=2))
    assert capsys.readouterr().out == "Working: 3 batches\n"


NOTEBOOK_WITHOUT_WIDGETS = """
import sys, types
notebook = types.ModuleType("IPython")
notebook.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": True})
sys.modules.update({"IPython": notebook, "ipykernel.zmqshell": notebook, "ipywidgets": None})
import deel_influence.utils.progress as progress
print(progress.tqdm.__module__)
"""


def test_a_notebook_without_widgets_has_a_bar_of_text_and_no_warning():
    process = subprocess.run(
        [sys.executable, "-c", NOTEBOOK_WITHOUT_WIDGETS],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "notebook" not in process.stdout
    assert "IProgress" not in process.stderr


@pytest.mark.parametrize("verbose", [3, True, "loud", None])
def test_other_values_of_verbose_are_refused(verbose):
    with pytest.raises(ValueError, match="`verbose` must be.*as in Keras"):
        list(progress_bar(range(3), "Working", verbose=verbose))


def test_devices_are_checked_by_name():
    for name in ("/CPU:1", "cpu:0", "cpu", "/CPU", "/device:CPU:0", tf.zeros(1).device):
        assert check_device(name) == name
    assert check_device(None) is None
    with pytest.raises(ValueError, match="`device` must be None or one of.*CPU:0.*'/GPU:7'"):
        check_device("/GPU:7")
    with pytest.raises(ValueError, match="'GPU'. Leave it out"):
        check_device("GPU")


def test_a_limit_of_memory_bounds_what_is_held_and_worked_with():
    free = available_bytes()
    with memory_limit(4000):
        assert available_bytes() <= 4000
        assert bytes_to_hold() <= 1000
        assert (working_bytes(900), working_bytes(2**28)) == (900, 1000)
        held = np.ones(2**21)  # 16 MiB of the process's
        assert available_bytes() == 0
        del held
    assert available_bytes() > free // 2
    assert working_bytes(2**28) == 2**28
    for wrong in (0, True, 1.5):
        with (
            pytest.raises(ValueError, match="`limit` must be a number of bytes"),
            memory_limit(wrong),
        ):
            pass


def test_memory_is_told_in_fitting_units():
    assert available_bytes() > 0
    assert human_bytes(1536) == "1.5 KiB"
    assert human_bytes(5 * 2**40) == "5.0 TiB"
