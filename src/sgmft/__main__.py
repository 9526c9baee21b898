"""`python -m sgmft`, which launchers of several processes ask for."""

from sgmft.cli.main import main

main()
