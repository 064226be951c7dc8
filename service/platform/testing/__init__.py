"""What your tests and the platform's use: the service booted or as a process, databases, clients, copies."""
