"""Run the encoder of a real checkpoint on this attention, and look at what each layer did.

`load` with no argument is the embedded sample, all-MiniLM-L6-v2 in 16 MB: 6 layers of 12 heads.
Layers and heads are counted from 0.
"""

from mhakit.models.encoder import Encoder, load
from mhakit.models.layers import EncoderLayer
from mhakit.models.run import LayerRun, Run
from mhakit.models.sentence import Sentence
from mhakit.models.text import read_sentences

__all__ = ["Encoder", "EncoderLayer", "LayerRun", "Run", "Sentence", "load", "read_sentences"]
