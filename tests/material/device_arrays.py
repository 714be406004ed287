"""Stand-ins for arrays in a CUDA device's memory: they point to the host's, as the simulator does."""

import numpy as np

from mhakit.device import dlpack, is_on_device
from mhakit.testing import Sizes, draw

SIZES = Sizes(2, 4, 2, 3, 9, 3, 5)


class Held:
    """An array on a device that tells of itself by ``__cuda_array_interface__``."""

    def __init__(self, array, stream=None, **told):
        self.array, self.dtype, self.shape = array, array.dtype, array.shape
        self.stream, self.told = stream, told

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.array.shape,
            "strides": self.array.strides,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, False),
            "stream": self.stream,
            "version": 3,
            **self.told,
        }


class Tensor(Held):
    """An array that speaks DLPack, too, and cannot say bfloat16 in the other protocol."""

    ordinal = 0

    @property
    def __cuda_array_interface__(self):
        return {**super().__cuda_array_interface__, "typestr": "<f2"}

    def __dlpack_device__(self):
        return 2, self.ordinal

    def __dlpack__(self, stream):
        self.asked = stream
        half = self.array.dtype.name == "bfloat16"
        capsule = self.array.view(np.uint16 if half else self.array.dtype).__dlpack__()
        if half:
            place = dlpack._pointer(capsule, b"dltensor")
            dlpack._Tensor.from_address(place).dtype.code = dlpack.BFLOAT
        return capsule


class Elsewhere(Tensor):
    ordinal = 1


ON_DEVICE = {"interface": Held, "dlpack": Tensor}
QUERY, KEY, VALUE = draw(SIZES, np.float32)


def at(result):
    """Return the numbers of a result on the device."""
    assert is_on_device(result), "a result of device arrays stays on the device"
    return result.copy_to_host()


SCALED = {"gain": np.linspace(0, 1, 4), "weight": np.eye(12), "bias": np.ones(12)}
