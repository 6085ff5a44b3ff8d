"""Bits per soft token, from random codes, beside the ceiling of directly optimised soft tokens."""
