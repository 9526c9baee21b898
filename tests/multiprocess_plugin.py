"""A plugin for `sgmft`: the tiny encoder, and a death in training where it is asked for.

The second of two processes dies where the first waits for it, after two checkpoints; or the
launcher dies after the second one is written, and the first process waits for ever.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import sgmft.training.trainer as training
from sgmft.features.encoders.registry import ENCODERS
from sgmft.utils import distributed
from tiny_encoder import TinyEncoder

ENCODERS["tiny"] = TinyEncoder

CHECKPOINTS = 2
killed, called = os.environ.get("SGMFT_TEST_KILL"), 0
gather, save = distributed.gather, training.save_training_state


def watched_gather(*given: Any) -> Any:
    global called
    called += 1
    if called > 1 + CHECKPOINTS:  # the first is the agreement before training
        os.kill(os.getpid(), signal.SIGKILL)
    return gather(*given)


def watched_save(*given: Any) -> None:
    global called
    save(*given)
    called += 1
    if called == CHECKPOINTS:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)


if killed == "process" and not distributed.is_main():
    distributed.gather = watched_gather
if killed == "launcher" and distributed.is_main():
    training.save_training_state = watched_save
