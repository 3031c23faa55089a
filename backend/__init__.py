"""The control plane: REST API, enrolment, records of jobs, audit. Needs no torch."""
