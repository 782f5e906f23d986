from mlflow.types.schema import Schema

CHAT_MODEL_INPUT_SCHEMA: Schema
CHAT_MODEL_OUTPUT_SCHEMA: Schema
