"""Tickets for the gateway, and the standings that it asks for."""
