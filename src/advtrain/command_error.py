"""What the `advtrain` commands raise: here, so that no command is imported to catch its error."""


class CommandError(Exception):
    """The command cannot do what was asked; the message says why and what to do."""
