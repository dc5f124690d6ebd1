import os
import sys

import psutil
import pytest

from inferd.server.observability import memory


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_resident_memory_is_what_the_system_says():
    assert memory.rss_bytes() == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.1)


def test_trimming_never_fails():
    assert memory.trim() in (True, False)
