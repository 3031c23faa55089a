"""The GPU worker: one process per device, which hosts the trunk of one job at a time."""
