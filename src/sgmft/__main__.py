"""`python -m sgmft`, which launchers of several processes need."""

from sgmft.cli.main import main

main()
