"""Telling people by e-mail and webhook: approvals that wait, failures, certificates that end, revocations."""
