"""The matcher service: claim photos from Kafka in; detections, alerts and dead letters out, exactly once."""
