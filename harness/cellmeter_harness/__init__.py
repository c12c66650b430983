"""Tasks, agents, sandboxes, cells and sweeps: what runs agents through the recorder, and the command line."""
