"""What this project uses of the official client, whose own annotations leave out arguments and results."""

from kubernetes import client as client
from kubernetes import config as config
from kubernetes import watch as watch
