"""Kafka: consuming, transactions, dead letters. Knows nothing of images."""
