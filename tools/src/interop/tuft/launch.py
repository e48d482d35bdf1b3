"""Starts TuFT without a GPU: launch.py PORT CONFIG. Its trainer asks Ray for one, and Ray only counts."""
import sys

import ray
from tuft.cli import app

ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=100_000_000)
app(["launch", "--host", "127.0.0.1", "--port", sys.argv[1], "--config", sys.argv[2]])
