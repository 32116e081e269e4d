"""The kernels of this environment answer every request."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.notebook


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelManager]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    yield manager
    manager.shutdown_kernel(now=True)


def test_requests_that_meet_a_reply_are_read(kernel: KernelManager) -> None:
    """In 300 rounds an ipykernel of 7.1 to 7.3 as it comes forgets some 25 requests, and each for good."""
    client = kernel.client()
    client.start_channels()
    client.wait_for_ready(60)
    client.stop_channels()
    moment = random.Random(0)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(f"tcp://127.0.0.1:{kernel.shell_port}")
        for number in range(300):
            for _ in range(3):
                kernel.session.send(socket, "kernel_info_request", {})
                time.sleep(moment.uniform(0, 0.0015))
            for _ in range(3):
                assert socket.poll(10_000), f"a request of round {number} was left lying"
                socket.recv_multipart()
