"""What a network is trained for: a loss and its scores. A task is handed its model."""
