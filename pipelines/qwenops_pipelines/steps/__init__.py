"""The steps of a pipeline that belong to no stage: cut the recipe, take up earlier work, heed the gate, finish."""
