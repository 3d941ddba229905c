"""One Lockstep per data folder and per port; who comes second is told where the first one is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from apps.console import instance
from config.environment import BASE_DIR


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_free_port_is_no_reason_to_refuse():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    instance.refuse_if_port_is_taken("127.0.0.1", port)


def test_a_taken_port_is_named_with_the_remedy(taken_port):
    with pytest.raises(instance.CannotStartError) as refusal:
        instance.refuse_if_port_is_taken("127.0.0.1", taken_port)

    assert f"Port {taken_port} on 127.0.0.1 is taken" in str(refusal.value)
    proposed = int(str(refusal.value).rpartition("make run PORT=")[2])
    instance.refuse_if_port_is_taken("127.0.0.1", proposed)


def test_a_host_that_is_not_of_this_machine_is_said():
    with pytest.raises(instance.CannotStartError, match="Nothing can listen on 192"):
        instance.refuse_if_port_is_taken("192.0.2.1", 8000)


def test_a_second_one_on_the_same_data_folder_is_told_where_the_first_one_runs(tmp_path):
    with instance.held(tmp_path, "http://127.0.0.1:8123/"):
        with pytest.raises(instance.CannotStartError) as refusal:
            instance.refuse_if_running(tmp_path)
        with pytest.raises(instance.CannotStartError), instance.held(tmp_path, "other"):
            pass

    assert f"at http://127.0.0.1:8123/ (process {os.getpid()})" in str(refusal.value)
    assert f"kill {os.getpid()}" in str(refusal.value)


def test_a_data_folder_is_free_again_afterwards(tmp_path):
    with instance.held(tmp_path, "first"):
        pass

    instance.refuse_if_running(tmp_path)
    with instance.held(tmp_path, "second"):
        pass


def test_a_data_folder_that_does_not_exist_yet_is_free(tmp_path):
    instance.refuse_if_running(tmp_path / "none")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("0.0.0.0", "http://127.0.0.1:80/"),
        ("::", "http://[::1]:80/"),
        ("::1", "http://[::1]:80/"),
        ("box.example", "http://box.example:80/"),
    ],
)
def test_the_address_is_one_that_opens_here(host, address):
    assert instance.address_of(host, 80) == address


def test_make_run_asks_before_anything_is_installed(taken_port, tmp_path):
    """Without site-packages, as on a fresh machine."""
    command = [sys.executable, "-S", "-m", "apps.console.instance"]
    command += ["--host", "127.0.0.1", "--port", str(taken_port)]

    done = subprocess.run(
        command,
        cwd=BASE_DIR,
        env={**os.environ, "LOCKSTEP_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "make run PORT=" in done.stderr
    assert "Traceback" not in done.stderr
