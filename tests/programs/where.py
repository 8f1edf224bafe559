"""Where the server is."""

import os

HOST = os.environ["HOST"]
PORT = int(os.environ["PORT"])
URL = f"redis://{HOST}:{PORT}"
