"""What the control plane lets be watched: numbers for Prometheus, and each party's log of a job."""
