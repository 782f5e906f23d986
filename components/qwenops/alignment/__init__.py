"""SFT, reward model, DPO and online preference optimisation."""
