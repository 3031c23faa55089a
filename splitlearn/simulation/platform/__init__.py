"""The demo's federation as the real thing: every part its own process, driven through the REST API."""
