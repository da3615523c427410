"""How badly the car of a photo is damaged, as a whole: its network, its training."""
