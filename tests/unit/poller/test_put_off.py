# SPDX-License-Identifier: GPL-3.0-or-later
"""What libraries import for nothing is not loaded, and is there for whoever uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_AGENT = """
import sys
from btfleet.poller.put_off import UNUSED, put_off
put_off()
import btfleet.poller.agent
import btfleet.poller.verify
{use}
unused = ("asyncio.base_events", "grpc.aio._channel", "google.protobuf.text_format")
print([name for name in UNUSED if name not in sys.modules])
print([name for name in unused if name in sys.modules])
"""


def output(checkout: Path, use: str = "") -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", _AGENT.format(use=use)],
        env={"PYTHONPATH": str(checkout / "agent")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def test_the_agent_has_the_modules_but_does_not_load_them(checkout: Path) -> None:
    assert output(checkout) == ["[]", "[]"]


def test_a_line_in_the_log_does_not_load_them(checkout: Path) -> None:
    use = "from btfleet.agent_command import set_up_log; set_up_log()\n"
    use += "import logging; logging.getLogger('btfleet').info('a line')"
    assert output(checkout, use) == ["[]", "[]"]


def test_they_work_for_whoever_uses_them(checkout: Path) -> None:
    use = "import asyncio; print(asyncio.run(asyncio.sleep(0, 'slept')))\n"
    use += "import grpc; print(grpc.aio.insecure_channel.__name__)\n"
    use += "from btfleet.config.v1 import config_pb2; print(config_pb2.File(path='a'))"
    assert output(checkout, use) == [
        "slept",
        "insecure_channel",
        'path: "a"',
        "",
        "[]",
        str(["asyncio.base_events", "grpc.aio._channel"]),
    ]
