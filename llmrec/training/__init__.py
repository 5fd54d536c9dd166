"""Fine-tuning: a log as timelines, the loss at their read slots, and training that survives."""
