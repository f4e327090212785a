"""What the suite `children` lets models in Python be: one that is curious, one that dies."""

import ctypes
import os
import signal
import socket
import subprocess
import time

MARK = os.path.join(os.path.dirname(__file__), "mark")


def attempt(action):
    try:
        return f"did {action()}"
    except BaseException as error:
        return type(error).__name__


def write():
    with open(MARK, "w") as file:
        return file.write("here")


def connect(family, address):
    with socket.socket(family) as plug:
        plug.settimeout(2)
        return plug.connect(address)


ACTIONS = {
    "read a file of the system": lambda: open("/etc/passwd").read(),
    "read its own code": lambda: open(__file__).read(9),
    "read the secrets of the node": lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(),
    "write beside the weights": write,
    "reach the network": lambda: connect(socket.AF_INET, ("127.0.0.1", 80)),
    "run a shell": lambda: subprocess.run(["/bin/sh", "-c", "true"]).returncode,
    "end the node": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "take 16 GiB": lambda: len(bytearray(16 << 30)),
    "see the node's environment": lambda: os.environ["MOTET_TEST_SECRET"],
}


def curious(action):
    """Tries what it is told, and tells how that went."""
    return [attempt(ACTIONS[name]) for name in action]


def mortal(text):
    """Dies of some texts, as native code does, and takes its time over others."""
    for each in text:
        if each == "segfault":
            ctypes.string_at(0)
        if each == "hang":
            time.sleep(3600)
        if each == "grow":
            held = []
            while True:
                held.append(bytearray(16 << 20))
        if each == "wrong":
            raise ValueError("this text is wrong")
        if each.startswith("slow"):
            time.sleep(0.02)
    return [each.upper() for each in text]

