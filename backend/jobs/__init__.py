"""Jobs: submitted by people, approved by silos, placed on workers, followed to their end."""
