"""Drawn photos of damaged cars: a surface (`surface`), a car's panels on it (`car`), damage done to it
(`damage`), a place whose light it mirrors (`place`), and the camera that photographs it (`camera`)."""
