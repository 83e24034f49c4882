"""Code that two or more stages or apps share: a module for each thing (raw tables, photos, packs, the card, ...)."""
