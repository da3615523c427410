"""damagewatch: the same damage, photographed again, found in another claim."""
