"""Run containers of the built image by the real Docker client as an operator would. IMAGE names another image."""

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

IMAGE = os.environ.get("IMAGE", "resnet-serving")
# The distribution's client before any other: it is the one that belongs to the engine.
DOCKER = shutil.which("docker", path=f"/usr/bin:{os.environ['PATH']}") or "docker"
POLL_S = 0.2  # a look into a container from outside is a process of its own: not too many of them


def docker(*arguments: str, check: bool = True) -> str:
    """Run the Docker client and return its output, including standard error."""
    done = subprocess.run(
        [DOCKER, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 or not check, done.stdout
    return done.stdout


class Container:
    """A container of the image, its port 8999 published on a free port of this machine."""

    def __init__(self, name: str, *options: str) -> None:
        """Start it; the caller removes it by its name."""
        self.name = name
        docker("run", "--detach", "--name", name, "--publish", "127.0.0.1::8999", *options, IMAGE)

    @property
    def url(self) -> str:
        """Return the server's address; a start may change the port."""
        return f"http://{docker('port', self.name, '8999').strip()}"

    def classify(self, image: Path) -> requests.Response:
        """Send an image as a client would."""
        with image.open("rb") as file:
            return requests.post(f"{self.url}/model_predict", files={"image": file}, timeout=60)

    def state(self) -> dict:
        """Return Docker's state: Running, ExitCode, Health and so on."""
        return json.loads(docker("inspect", "--format", "{{json .State}}", self.name))

    def execute(self, *command: str) -> str:
        """Run a command inside."""
        return docker("exec", self.name, *command, check=False)

    def supervisorctl(self, *arguments: str) -> str:
        """Run supervisorctl inside."""
        return self.execute("supervisorctl", "-c", "conf/supervisor.conf", *arguments)

    def log(self) -> str:
        """Return its output since its first start."""
        return docker("logs", self.name)

    def stop(self) -> None:
        """Stop it in order."""
        docker("stop", "-t", "60", self.name)

    def kill(self) -> None:
        """End it like a power cut."""
        docker("kill", self.name)

    def start(self) -> None:
        """Start it again after a stop or a kill."""
        docker("start", self.name)

    def wait_until(self, condition: Callable[[], object], what: str, timeout_s: float = 90) -> None:
        """Poll a condition; fail with the container's log if it does not come true in time."""
        until = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until, f"not within {timeout_s} s: {what}\n{self.log()}"
            time.sleep(POLL_S)

    def wait_until_healthy(self) -> None:
        """Wait until Docker reports it as healthy."""
        self.wait_until(lambda: self.state()["Health"]["Status"] == "healthy", "healthy")

    def wait_until_ready(self) -> None:
        """Wait until the server reports itself as ready."""
        self.wait_until(self.is_ready, "ready")

    def is_ready(self) -> bool:
        """Return whether the server is ready."""
        try:
            return requests.get(f"{self.url}/readyz", timeout=10).ok
        except requests.RequestException:
            return False


@contextmanager
def removed_afterwards(*options: str) -> Iterator[Container]:
    """Run a container and always remove it; pytest shows its log if a test fails."""
    name = f"resnet-serving-test-{uuid.uuid4().hex[:8]}"
    try:
        container = Container(name, *options)
        yield container
        print(container.log())
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


@pytest.fixture
def run() -> Iterator[Callable[..., Container]]:
    """Return a function that runs a container with the given options of ``docker run``."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(removed_afterwards(*options))


@pytest.fixture(scope="session")
def server() -> Iterator[Container]:
    """Return a healthy server that may do nothing but serve: no capability, nothing to write on but two tmpfs."""
    options = (
        "--read-only --tmpfs /srv/run:size=1g --tmpfs /tmp:size=256m"
        " --cap-drop ALL --security-opt no-new-privileges"
    )
    with removed_afterwards(*options.split()) as container:
        container.wait_until_healthy()
        yield container


@pytest.fixture(scope="session")
def operated_server() -> Iterator[Container]:
    """Return a server without any option for tests of operations; each test leaves it ready."""
    with removed_afterwards() as container:
        container.wait_until_ready()
        yield container
