"""An organisation's users."""
