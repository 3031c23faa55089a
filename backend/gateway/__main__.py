"""Run the gateway as a process."""

import sys

from backend.gateway.process import main

if __name__ == "__main__":
    sys.exit(main())
