"""What whoever runs a server needs: keys, logs, models that come and go."""
