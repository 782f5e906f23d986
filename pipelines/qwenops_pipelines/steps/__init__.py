"""The steps of a pipeline that belong to no stage: cut the recipe, import artifacts, enforce the gate, finish."""
