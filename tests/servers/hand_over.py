"""Hands a listening socket over to a program, as a service manager does (sd_listen_fds(3)), and keeps it open while the
program is started again and again: whenever a file `again` is there.

usage: hand_over.py ADDRESS PORT PROGRAM ARGUMENT...    The program's number is written to `pid`.
"""

import ctypes
import os
import signal
import socket
import sys
import time

PR_SET_PDEATHSIG = 1

address, port, *program = sys.argv[1:]
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, int(port)))
listener.listen(64)

while True:
    pid = os.fork()
    if pid == 0:
        # It does not outlive this one.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        os.execvp(program[0], program)
    with open("pid.new", "w") as file:
        file.write(str(pid))
    os.rename("pid.new", "pid")
    _, status = os.waitpid(pid, 0)
    print(f"ended with {os.waitstatus_to_exitcode(status)}", flush=True)
    while not os.path.exists("again"):
        time.sleep(0.02)
    os.remove("again")
