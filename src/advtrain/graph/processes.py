"""How many processes train a cell together: no parameter, but what the environment asks for."""

from advtrain.params.environment import counted
from advtrain.params.reader import ParamsError

PROCESSES = "ADVTRAIN_PROCESSES"


def processes() -> int:
    """Return how many processes are to train a cell.

    Raises:
        ParamsError: if `ADVTRAIN_PROCESSES` is no count.
    """
    try:
        return counted(PROCESSES, 1)
    except ValueError as error:
        raise ParamsError(str(error)) from None
