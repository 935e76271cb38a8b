"""Residual networks, published and searched."""
