"""What the tests of several files are made of: arrays, stand-ins, broken things, and their rules."""
