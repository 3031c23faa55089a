"""Sessions in which a silo generates with what a job trained: who may, at which worker, and for how long."""
