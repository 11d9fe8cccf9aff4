"""One of the processes of test_caching that share a cache's work: trains as configured.

torchrun --nproc-per-node 2 one_cache.py key=value …
"""

import sys

from colmrl.configure import load_config
from colmrl.training.run import train

if __name__ == "__main__":
    train(load_config(None, sys.argv[1:]))
