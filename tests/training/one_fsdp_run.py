"""One of the processes of a whole run under accelerate's FSDP 2, which accelerate itself offers on GPUs only.

torchrun --nproc-per-node 2 one_fsdp_run.py DIE_AT key=value …    (DIE_AT: the step before which it is killed, or 0)
"""

import os
import sys

from accelerate import state
from accelerate.utils import DistributedType
from engine import leave_sharded

from colmrl.configure import load_config
from colmrl.training.run import train
from colmrl.training.trainer import RetrieverTrainer

os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
os.environ |= {"FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}


def pretending_gpus(start):
    def init(self, *args, **kwargs):
        start(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    return init


def main(die_at, *overrides):
    state.PartialState.__init__ = pretending_gpus(state.PartialState.__init__)
    step = RetrieverTrainer.training_step

    def dying_step(self, *args, **kwargs):
        assert self.is_fsdp_enabled
        if self.state.global_step + 1 == int(die_at):
            os._exit(9)
        return step(self, *args, **kwargs)

    RetrieverTrainer.training_step = dying_step
    train(load_config(None, overrides))
    leave_sharded()


if __name__ == "__main__":
    main(*sys.argv[1:])
