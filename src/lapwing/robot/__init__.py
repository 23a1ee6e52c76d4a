"""Real arms and what stands between them and a policy: synchronised sensors in, limited commands out."""
