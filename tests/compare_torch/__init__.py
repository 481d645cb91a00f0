"""gpunet against PyTorch on the CPU: every formula, every optimizer, whole training runs. Skipped without torch."""
