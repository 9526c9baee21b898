"""The one exception that means "the user can mend this"."""


class SgmftError(Exception):
    """A mistake in the input, told in one sentence: what, where (file, row, column), and the cure.

    The command line prints the sentence and ends with exit code 2; it never shows a traceback.
    """
