"""Training in several processes: how they start, what they tell each other, how they end."""
