"""The registry: registered resources, their owners and states."""
