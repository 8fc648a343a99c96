"""How the command line ends where it cannot go on: at once, with one line, and with its code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from deel_influence.datasets import preparation
from deel_influence.errors import DataSourceError

START = [sys.executable, "-c", "from deel_influence.cli.app import main; main()"]
SECONDS = 10.0


@pytest.fixture
def silent_host() -> Iterator[tuple[str, threading.Event]]:
    """Give the address of a host that takes connections and never answers, and when one came."""
    listener = socket.create_server(("127.0.0.1", 0))
    met, kept = threading.Event(), []

    def take() -> None:
        while True:
            try:
                kept.append(listener.accept())
            except OSError:
                return
            if len(kept) > 1:  # the first only asks whether the host is there
                met.set()

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", met
    listener.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_ctrl_c_ends_a_download_that_does_not_come_on(silent_host, model_path, tmp_path) -> None:
    proxy, met = silent_host
    environment = {**os.environ, "HTTPS_PROXY": proxy, "TFDS_DATA_DIR": str(tmp_path)}
    arguments = ["triage", "--model", model_path, "--data", "tfds:mnist", "--out", tmp_path / "o"]
    process = subprocess.Popen(
        [*START, *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        # A shell may have started the tests with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert met.wait(6 * SECONDS)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in errors


@pytest.mark.parametrize("back_end", ["numpy", "made_up"])
def test_another_back_end_is_one_line(back_end: str, model_path, data_path) -> None:
    arguments = ["triage", "--model", str(model_path), "--data", str(data_path)]
    environment = {**os.environ, "KERAS_BACKEND": back_end}
    done = subprocess.run(
        [*START, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"Received: {back_end!r}" in line
    assert "KERAS_BACKEND=tensorflow" in line


def builder(folder: Path, *urls: str) -> SimpleNamespace:
    """Return what `preparation` asks of a builder, which would download from there."""

    def download_and_prepare(**options: object) -> None:
        (folder / "prepared").touch()

    return SimpleNamespace(
        name="digits",
        data_dir=str(folder / "digits" / "1.0.0"),
        info=SimpleNamespace(full_name="digits/1.0.0"),
        url_infos=dict.fromkeys(urls),
        download_and_prepare=download_and_prepare,
    )


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation.urllib.request, "getproxies", dict)


@pytest.mark.usefixtures("no_proxy")
def test_a_host_that_does_not_answer_is_named_before_the_download(tmp_path: Path) -> None:
    port = closed_port()
    with pytest.raises(DataSourceError, match=f"no answer from 127.0.0.1, port {port}"):
        preparation.prepare(builder(tmp_path, f"http://127.0.0.1:{port}/x.gz"))
    assert not (tmp_path / "prepared").exists()


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("there", ["digits/1.0.0", "downloads/x.gz"])
def test_what_is_on_disk_needs_no_host(tmp_path: Path, there: str) -> None:
    (tmp_path / there).mkdir(parents=True)
    preparation.prepare(builder(tmp_path, f"http://127.0.0.1:{closed_port()}/x.gz"))
    assert (tmp_path / "prepared").exists()


def test_the_proxy_is_asked_where_there_is_one(tmp_path: Path, monkeypatch) -> None:
    proxy = f"127.0.0.1:{closed_port()}"
    monkeypatch.setattr(preparation.urllib.request, "getproxies", lambda: {"https": proxy})
    with pytest.raises(DataSourceError, match=proxy.replace(":", ", port ")):
        preparation.prepare(builder(tmp_path, "https://example.org/x.gz"))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device", "scores.parquet"), 2, "No space left"),
        (OSError(30, "Read-only file system", "o"), 2, "--out must be where"),
        (MemoryError("Unable to allocate 9 TiB"), 2, "--batch-size"),
        (KeyError("a"), 1, "unexpected error KeyError"),
        (RecursionError("too deep\nby far"), 1, "too deep by far. Run again with --verbose"),
        (FileNotFoundError(2, "No such file", "x"), 1, "unexpected error FileNotFoundError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_whatever_is_raised_is_one_line(
    run, model_path, data_path, tmp_path, monkeypatch, error, code, words
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("deel_influence.cli.scoring.run_triage", fail)
    result = run("triage", "--model", model_path, "--data", data_path, "--out", tmp_path / "o")
    assert result.exit_code == code
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert words in line
    assert "Traceback" not in result.output
