"""What is seen from outside: metrics, logs, health, and what systemd learns."""
