"""What an operator sees of a live process: health, the management listener, tasks, the watchdog of the event loop."""
