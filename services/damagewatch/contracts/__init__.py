"""The contracts: messages (generated from proto/), topics and headers, and the codec to domain values."""
