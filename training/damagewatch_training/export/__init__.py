"""From torch to the folder of models that the service loads."""
