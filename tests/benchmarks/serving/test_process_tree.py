"""What a process and its children use."""

import os
import subprocess
import sys

import pytest

from benchmarks.serving import process_tree
from tests.patience import until

pytestmark = pytest.mark.skipif(not process_tree.PROC.exists(), reason="reads /proc, which this system does not have")

# A child that burns CPU, for a minute at most, and a parent that only waits.
CHILD = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_children_count() -> None:
    """The CPU and the memory of a child are its parent's tree's, and the tree can be ended."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT])
    try:
        until(lambda: len(process_tree.tree(parent.pid)) == 2, "the child")
        family = process_tree.tree(parent.pid)
        until(
            lambda: process_tree.cpu_s(family) - process_tree.cpu_s([parent.pid]) > 0.2, "CPU that the child has used"
        )

        assert family[0] == parent.pid
        assert process_tree.rss_mb(family) > process_tree.rss_mb([parent.pid]) + 1
    finally:
        process_tree.kill(process_tree.tree(parent.pid))
        parent.wait()
    assert process_tree.tree(parent.pid) == []


def test_ended_processes_use_nothing() -> None:
    """A process that went meanwhile is no error."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert process_tree.cpu_s([ended.pid]) == process_tree.rss_mb([ended.pid]) == 0
    process_tree.kill([ended.pid])


def test_this_process_is_in_its_own_tree() -> None:
    """Memory is counted in MB."""
    assert 5 < process_tree.rss_mb([os.getpid()]) < 5_000
