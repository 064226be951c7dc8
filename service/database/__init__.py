"""The only door to SQL: one call is one function, one transaction, one thread hop."""
