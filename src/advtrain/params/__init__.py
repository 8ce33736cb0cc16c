"""Parameters: what `params.yaml` may say, checked before anything runs."""
