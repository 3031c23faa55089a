"""``python -m client_agent``: the same as ``trunkline-agent``."""

from client_agent.cli import main

if __name__ == "__main__":  # a child process may import this module under another name
    main()
