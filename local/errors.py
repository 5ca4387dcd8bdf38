"""The one exception a user is meant to see."""


class InputError(Exception):
    """A user's mistake: what was found where, what was expected, what to do.

    Its message is printed as it is, without a traceback, and the program exits with status 1. A message
    has one line, or one line for each bad file or utterance.
    """
