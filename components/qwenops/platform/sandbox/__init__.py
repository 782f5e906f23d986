"""Programs nobody has read: they compute in a confined process, and another process judges what they return."""
