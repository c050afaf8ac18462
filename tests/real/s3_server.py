"""moto, one request after the other: it looks whether a name is taken and gives the name in two steps, which S3 does in one.

    s3_server.py PORT
"""

import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

moto = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def in_turn(environment, start_response):
    with turn:
        return moto(environment, start_response)


run_simple("127.0.0.1", int(sys.argv[1]), in_turn, threaded=True)
