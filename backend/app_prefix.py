"""Where the API begins, for the application and for whoever calls it."""

API_PREFIX = "/api/v1"
