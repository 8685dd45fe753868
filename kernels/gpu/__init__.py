"""Kernels for GPUs, compiled by Triton when they are first used."""
