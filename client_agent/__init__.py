"""The silo agent: what an organisation installs to train with others while its data stays with it."""
