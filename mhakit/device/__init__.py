"""Arrays in a CUDA device's memory: where they lie, told without reading them.

Importing this imports nothing of CUDA: an array tells of itself by one of two protocols.
"""

from mhakit.device.array import DeviceArray, is_device_array
from mhakit.device.reading import is_on_device, read

__all__ = ["DeviceArray", "is_device_array", "is_on_device", "read"]
