"""What is told to a user: mistakes that end the work, and warnings that do not."""


class SgmftError(Exception):
    """A mistake in the input, told in one sentence: what, where (file, row, column), and the cure.

    The command line prints the sentence and ends with exit code 2; it never shows a traceback.
    """


def make_printable(text: str) -> str:
    """What a file holds, as a message may show it: one line that does nothing to a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class SgmftWarning(UserWarning):
    """What goes on all the same, and a user should know of: one sentence."""
