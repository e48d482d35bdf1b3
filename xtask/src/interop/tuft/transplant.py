"""Puts the weights of a PEFT adapter into a checkpoint of ours: transplant.py ADAPTER CHECKPOINT.

Names, shapes and scale (alpha 32) are the same on both sides; what is ours is the header, which is kept.
"""
import sys

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

adapter, checkpoint = sys.argv[1:]
with safe_open(checkpoint, "np") as ours:
    metadata, names = ours.metadata(), set(ours.keys())
theirs = load_file(adapter)
if set(theirs) != names:
    sys.exit(f"the adapters differ in {sorted(set(theirs) ^ names)}")
save_file(theirs, checkpoint, metadata=metadata)
