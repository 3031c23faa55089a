"""The federation root as the control plane sees it."""
