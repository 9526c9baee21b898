"""`python -m sgmft`, which launchers of several processes ask for."""

from sgmft.cli import main

main()
