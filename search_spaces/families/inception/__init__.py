"""Inception networks on clips: v1 (I3D, S3D) and v3."""
