"""What is told to a user: mistakes that end the work, and warnings that do not."""


class SgmftError(Exception):
    """A mistake in the input, told in one sentence: what, where (file, row, column), and the cure.

    The command line prints the sentence and ends with exit code 2; it never shows a traceback.
    """


class SgmftWarning(UserWarning):
    """What goes on all the same, and a user should know of: one sentence."""
