"""The networks: the default, SG-MFT, the systems they are compared with, and their registry."""
