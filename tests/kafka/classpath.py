"""The jars of a Kafka broker, which Maven finds once and keeps."""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

POM = Path(__file__).parent / "pom.xml"
CACHE = Path(__file__).parents[2] / ".kafka"


class BrokerUnavailableError(Exception):
    """No broker can be started here: Java, Maven or the jars are missing."""


def broker_classpath(pom: Path = POM, cache: Path = CACHE) -> str:
    """Returns the jars that a pom names, as `java -cp` takes them.

    Args:
        pom: names the jars.
        cache: the folder that keeps the answer between runs, by the pom's digest; the jars lie where Maven keeps them.

    Raises:
        BrokerUnavailableError: there is no Maven, or it cannot find the jars, as without a network.
    """
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    answer = cache / f"classpath-{digest}.txt"
    cache.mkdir(exist_ok=True)
    with (cache / "classpath.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs of the tests one asks
        if not answer.exists() or not all(Path(jar).exists() for jar in answer.read_text().split(":")):
            _resolve(pom, answer)
    return answer.read_text()


def _resolve(pom: Path, answer: Path) -> None:
    if shutil.which("mvn") is None:
        raise BrokerUnavailableError("mvn: expected Maven, which finds the broker's jars, got none")
    new = answer.with_suffix(".new")
    goal = ["dependency:build-classpath", f"-Dmdep.outputFile={new}", "-Dmdep.pathSeparator=:"]
    done = subprocess.run(["mvn", "-q", "-B", "-f", str(pom), *goal], capture_output=True, text=True)
    if done.returncode != 0:
        raise BrokerUnavailableError(f"{pom.name}: Maven failed: {(done.stdout + done.stderr).strip()[-2000:]}")
    new.replace(answer)
