"""What every training shares: its configuration, its record, its checkpoints, its rate of learning."""
