"""Our model beside the other implementations: time, memory, and the share of the device's arithmetic in use."""

from vitscratch.bench.compare import Bench, Row, measure
from vitscratch.bench.peers import OURS, PEERS, build_peer, installed
from vitscratch.bench.timing import Ratio, interleaved

__all__ = ["OURS", "PEERS", "Bench", "Ratio", "Row", "build_peer", "installed", "interleaved", "measure"]
