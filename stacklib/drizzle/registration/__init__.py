"""What is known about unregistered frames: geometry by stars or Siril, and what registered frames tell."""
