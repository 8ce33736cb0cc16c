"""How many processes train a cell together: no parameter, but what the environment asks for."""

import os

from advtrain.params.reader import ParamsError

PROCESSES = "ADVTRAIN_PROCESSES"


def processes() -> int:
    """Return how many processes are to train a cell.

    Raises:
        ParamsError: if `ADVTRAIN_PROCESSES` is no count.
    """
    text = os.environ.get(PROCESSES, "").strip() or "1"
    if not text.isdecimal() or int(text) == 0:
        raise ParamsError(f"{PROCESSES}: expected a whole number, 1 or more, got {text!r}")
    return int(text)
