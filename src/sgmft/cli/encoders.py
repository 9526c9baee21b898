"""`sgmft encoders`: what turns posts into features, and a test of one."""

from typing import Annotated

from typer import Argument, Exit

from sgmft.cli import options as opt
from sgmft.errors import SgmftError


def encoders_command(
    action: Annotated[str | None, Argument(help="check, or nothing for a list.")] = None,
    name: Annotated[str | None, Argument(help="The encoder to check; as for train.")] = None,
    device: opt.Device = None,
) -> None:
    """List the encoders with their widths, or check one; exit code 1 where a check fails.

    Made-up posts show shapes, determinism, tokens, speed, and whether others or a lost side matter.
    """
    from sgmft.jobs.encoders import check_encoder, list_encoders

    if action not in (None, "check") or (name is None) != (action is None):
        raise SgmftError("Write sgmft encoders for a list, or sgmft encoders check NAME.")
    if name is not None:
        failed = False
        for title, passed, found in check_encoder(name, device):
            print(f"{'ok' if passed else 'FAILED':8}{title:16}{found}", flush=True)
            failed = failed or not passed
        raise Exit(int(failed))
    for row in (("encoder", "texts", "pictures", "both", "needs"), *list_encoders()):
        print("{:26}{:>7}{:>10}{:>6}  {}".format(*(str(cell or "?") for cell in row)))
