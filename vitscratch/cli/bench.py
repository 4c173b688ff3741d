from dataclasses import dataclass
from vitscratch.cli.common import Common
@dataclass(kw_only=True)
class Bench(Common):
    """x"""
    def run(self): return 0
