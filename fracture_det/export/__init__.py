"""Export of trained detectors to other runtimes; every export is compared with its source before it is kept."""
