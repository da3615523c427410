"""One module a format: each yields what it finds (`found.Found`), and reports what it cannot make sense of."""
