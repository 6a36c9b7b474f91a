"""What every method of the suite costs, counted at the papers' scale and measured on the machine at hand (R4-d)."""
