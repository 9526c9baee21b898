"""The systems SG-MFT is compared with, with one signature for all."""
