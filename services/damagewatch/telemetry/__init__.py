"""How the service is doing: metrics, health and logs. Whatever a label or a log may hold is bounded."""
