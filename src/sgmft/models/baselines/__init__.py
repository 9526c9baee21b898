"""The systems SG-MFT is compared with: one file each, one signature for all."""
