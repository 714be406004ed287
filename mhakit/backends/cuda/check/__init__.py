"""Checks of the tile kernels: against float64 on a GPU or in NumPy, and compiled without one."""
