"""Image networks of timm on clips."""
