#!/usr/bin/env python3
"""Small programs over pollio next to real ones: http_server and nginx, resp_server and redis-server, and the pool
with one poller next to a poller for each thread.

    bench/programs.py [--quick] [--out FOLDER]

--quick makes one short round, for a look. FOLDER, by default target/bench, gets programs.json with every cell. Needs
two cores and Debian's packages nginx, wrk, redis-server and redis-tools. It takes some ten minutes; leave the machine
alone while it runs.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import re
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "target/release/examples"
SERVER_CORE, LOAD_CORE = "0", "1"
TICK = 1 / os.sysconf("SC_CLK_TCK")

NEEDED = {
    "nginx": "nginx", "wrk": "wrk", "redis-server": "redis-server", "redis-benchmark": "redis-tools",
    "taskset": "util-linux",
}

# The same as the body of http_server's answer to `GET /`.
BODY = "You asked for /\n"

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; open_file_cache max=16; keepalive_requests 1000000000; keepalive_timeout 1h;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port}; root {folder};
        location = /memory {{ return 200 "{body}"; }}
    }}
}}
"""


class Server:
    """A server on its core, from here until the end of the run."""

    def __init__(self, stack, command, core=SERVER_CORE):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [str(word) for word in command(self.port)]
        pinned = ["taskset", "-c", core, *command] if core else command
        self.process = subprocess.Popen(pinned, stdout=subprocess.DEVNULL)
        stack.callback(self.end)
        for _ in range(1000):
            with contextlib.suppress(ConnectionRefusedError), self.connect():
                return
            time.sleep(0.01)
        sys.exit(f"{command[0]} does not listen")

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port))

    def end(self):
        self.process.terminate()
        self.process.wait()

    def cpu(self):
        """Seconds of the process and its children, such as nginx's worker."""
        process = self.process.pid
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return sum(map(cpu_of, [process, *children]))


def cpu_of(process):
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def output_of(*command):
    # By its name, whatever a locale makes of numbers.
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout


def under_load(server, load):
    """What a load, which returns its requests, the seconds that they took, and p99 in µs, comes to."""
    before = server.cpu()
    requests, seconds, p99 = load()
    cpu = server.cpu() - before
    return {"requests/s": requests / seconds, "CPU a request [µs]": cpu / requests * 1e6, "p99 [µs]": p99}


def wrk(server, path, connections, seconds):
    text = output_of(
        "taskset", "-c", LOAD_CORE, "wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s",
        f"http://127.0.0.1:{server.port}{path}",
    )
    if "errors" in text or "Non-2xx" in text:
        sys.exit(text)
    requests, took, unit = re.search(r"(\d+) requests in ([\d.]+)(m?s)", text).groups()
    p99, p99_unit = re.search(r"99% +([\d.]+)(us|ms|s)", text).groups()
    microseconds = {"us": 1, "ms": 1e3, "s": 1e6}
    return int(requests), float(took) * microseconds[unit] / 1e6, float(p99) * microseconds[p99_unit]


def redis_benchmark(server, command, clients, pipeline, requests):
    text = output_of(
        "taskset", "-c", LOAD_CORE, "redis-benchmark", "--csv", "-p", str(server.port), "-t", command,
        "-c", str(clients), "-P", str(pipeline), "-n", str(requests),
    )
    head, figures = (line.strip('"').split('","') for line in text.splitlines()[-2:])
    figures = dict(zip(head, figures))
    return requests, requests / float(figures["rps"]), float(figures["p99_latency_ms"]) * 1e3


def ask_pool(server, clients, requests, seed):
    """Each client sends `requests` requests. One of 20 takes 5 ms."""
    chance, times, start = random.Random(seed), [], time.monotonic()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        def ask(client, left):
            client.sendall(b"5\n" if chance.random() < 0.05 else b"0\n")
            return left - 1, time.monotonic()

        for _ in range(clients):
            client = stack.enter_context(server.connect())
            selector.register(client, selectors.EVENT_READ, ask(client, requests))
        while selector.get_map():
            for key, _ in selector.select():
                left, asked = key.data
                if len(key.fileobj.recv(16)) != 2:
                    sys.exit("the pool has sent something else than an answer")
                times.append(time.monotonic() - asked)
                if left == 0:
                    selector.unregister(key.fileobj)
                else:
                    selector.modify(key.fileobj, selectors.EVENT_READ, ask(key.fileobj, left))
    times.sort()
    return len(times), time.monotonic() - start, times[len(times) * 99 // 100] * 1e6


def cases(stack, folder, quick):
    """Yields workload, case, and the peers, the real one first, each with a function that measures it once."""
    (folder / "file").write_text(BODY)
    config = folder / "nginx.conf"

    def nginx(port):
        config.write_text(NGINX.format(folder=folder, port=port, body=BODY.replace("\n", "\\n")))
        return ["nginx", "-c", config]

    def example(name, *options):
        return lambda port: [EXAMPLES / name, *options, f"127.0.0.1:{port}"]

    nginx = Server(stack, nginx)
    # No connection of the load is idle for an hour.
    http_server = Server(stack, lambda port: [EXAMPLES / "http_server", f"127.0.0.1:{port}", "3600"])
    redis = Server(
        stack, lambda port: ["redis-server", "--port", port, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    )
    resp_server = Server(stack, example("resp_server"))
    # Its threads sleep most of the time, in place of work.
    apart, shared = Server(stack, example("pool", "--apart"), None), Server(stack, example("pool"), None)

    def http(server, path, connections):
        return lambda _: under_load(server, lambda: wrk(server, path, connections, 1 if quick else 3))

    def resp(server, *load):
        command, clients, pipeline, requests = load
        requests //= 10 if quick else 1
        return lambda _: under_load(server, lambda: redis_benchmark(server, command, clients, pipeline, requests))

    def pool(server):
        return lambda seed: under_load(server, lambda: ask_pool(server, 16, 200 if quick else 2_000, seed))

    for connections in [1, 64, 512]:
        for name, path in [("a file", "/file"), ("from memory", "/memory")]:
            peers = {"nginx": http(nginx, path, connections), "http_server": http(http_server, "/", connections)}
            yield "HTTP", f"{name}, {counted(connections, 'connection')}", peers
    for command in ["get", "set"]:
        for clients, pipeline, requests in [(1, 1, 60_000), (50, 1, 250_000), (50, 16, 2_000_000)]:
            name = f"{command.upper()}, {counted(clients, 'client')}" + (", 16 at once" if pipeline > 1 else "")
            load = [command, clients, pipeline, requests]
            yield "RESP", name, {"redis-server": resp(redis, *load), "resp_server": resp(resp_server, *load)}
    yield "pool", "4 threads, 16 clients", {"a poller each": pool(apart), "one poller": pool(shared)}


def counted(number, noun):
    return f"{number} {noun}" + ("s" if number > 1 else "")


def spread(values):
    """The lower quartile, the median and the upper quartile, as the bench has them."""
    values, last = sorted(values), len(values) - 1
    return [float(f"{values[index]:.4e}") for index in (last // 4, last // 2, last - last // 4)]


def row(workload, case, metric, peers, rounds):
    """`rounds` has the figures of each, by peer. A ratio is to the first peer, round by round."""
    base, cells = next(iter(peers)), []
    for peer in peers:
        cell = {"peer": peer, "figure": spread([figures[peer][metric] for figures in rounds])}
        if peer != base and all(figures[base][metric] for figures in rounds):
            cell["ratio"] = spread([figures[peer][metric] / figures[base][metric] for figures in rounds])
        cells.append(cell)
    return {"workload": workload, "case": case, "metric": metric, "cells": cells}


def ticks():
    """Of all cores: the ticks of all processes, on this machine or another one, and all ticks."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    )
    return user + nice + system + steal, user + nice + system + idle + iowait + irq + softirq + steal


def own_ticks():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used) / TICK


def measure(quick):
    """All rows, and the share of the machine that other processes had."""
    before, own_before, rows = ticks(), own_ticks(), []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        # nginx's worker is another user's if root starts it.
        os.chmod(folder, 0o755)
        all_cases = list(cases(stack, Path(folder), quick))
        taken = [[] for _ in all_cases]
        # The first round warms up.
        for number in range(2 if quick else 8):
            for (workload, case, peers), rounds in zip(all_cases, taken):
                print(f"round {number}: {workload}, {case}", file=sys.stderr)
                names = list(peers)
                turns = names[number % 2 :] + names[: number % 2]
                rounds.append({name: peers[name](number) for name in turns})
        for (workload, case, peers), rounds in zip(all_cases, taken):
            for metric in ["requests/s", "CPU a request [µs]", "p99 [µs]"]:
                rows.append(row(workload, case, metric, peers, rounds[1:]))
    busy, total = (after - start for after, start in zip(ticks(), before))
    return rows, (busy - own_ticks() + own_before) / total


def version(*command):
    # Some print their version and exit with an error.
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return re.search(r"\d+\.\d+\.\d+", process.stdout).group()


def about(quick, others):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cpu = cpu.group(1) if cpu else platform.machine()
    commit = output_of("git", "-C", REPOSITORY, "rev-parse", "--short", "HEAD").strip()
    rounds = "**One short round, which shows the page and no figures**" if quick else "Seven rounds"
    return (
        f"{rounds} of {datetime.date.today()}, commit {commit}, on {cpu}, {os.cpu_count()} cores, Linux "
        f"{platform.release()}; others had {max(others, 0):.0%} of the machine. All servers run from the beginning, "
        "each on "
        f"one core with one worker, and are loaded in turns from another core. nginx {version('nginx', '-v')} keeps no "
        f"log, and answers wrk {version('wrk', '-v')} with 16 bytes, as many as http_server: a file in "
        f"`open_file_cache`, or from memory (`return`). redis-server {version('redis-server', '--version')} saves "
        "nothing; redis-benchmark gets and sets one key, with three bytes. In the pool, one request of 20 takes 5 ms, "
        "threads sleep in place of work, and server and load share all cores. CPU is that of the server, user and "
        "system. These figures are no reason to replace the real servers, which do more for each request: nginx sends "
        "five or eight headers, where http_server sends two, and has TLS, HTTP/2, logs, "
        "a configuration that is looked up for each request, ranges, compression, and proxying; redis-server counts "
        "its commands, keeps the time of slow ones, checks permissions, expires and evicts keys, grows its "
        "table bit by bit where resp_server's stops the loop, replicates, persists, and has 240 "
        "commands in place of nine."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "target/bench")
    arguments = parser.parse_args()
    missing = [f"{name} (Debian's {package})" for name, package in NEEDED.items() if not shutil.which(name)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}")
    names = ["http_server", "resp_server", "pool"]
    build = ["cargo", "build", "--release", "--package", "pollio"]
    subprocess.run([*build, *(f"--example={name}" for name in names)], check=True, cwd=REPOSITORY)
    rows, others = measure(arguments.quick)
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in rows)
    about_all = json.dumps(about(arguments.quick, others), ensure_ascii=False)
    path = arguments.out / "programs.json"
    path.write_text(f'{{\n"about": {about_all},\n"rows": [\n{lines}\n]\n}}\n')
    print(f"Others had {max(others, 0):.0%} of the machine. Written to {path}.", file=sys.stderr)


if __name__ == "__main__":
    main()
