"""Found by every Python process that has this folder in PYTHONPATH, Ray's workers too. TuFT calls
torch.cuda.reset_peak_memory_stats for each micro-batch, which raises where there is no GPU: here it does nothing."""
import importlib.machinery
import sys


class WithoutGpu:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torch.cuda":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def patched(module):
            load(module)
            module.reset_peak_memory_stats = lambda *args, **kwargs: None

        spec.loader.exec_module = patched
        return spec


sys.meta_path.insert(0, WithoutGpu)
