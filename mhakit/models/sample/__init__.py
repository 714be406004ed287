"""The embedded sample: all-MiniLM-L6-v2 in 16 MB, and `make`, the script that made it."""
