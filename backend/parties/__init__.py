"""Silos and workers: invitations, enrolment, log-in, sessions, revocation."""
