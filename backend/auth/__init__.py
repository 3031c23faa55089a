"""Who calls, and what they may do: passwords, tokens, permissions, sign-in."""
