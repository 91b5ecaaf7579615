"""What the stages share: folders, the environment of commands, their log and time limit, and the results kept between calls."""

import datetime
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Failure(Exception):
    """A check that did not hold, or a command that failed: the stage ends, the next one begins."""


def toolkits():
    """Folders in which a CUDA toolkit may lie."""
    nvcc = shutil.which("nvcc")
    found = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/usr",
             nvcc and os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))]
    return [folder for folder in found if folder]


def library(variable, header):
    """A library's folder for cmake's `variable`: as the environment gives it; None where a toolkit or the system has the header;
    else the newest among Python's packages."""
    if os.environ.get(variable):
        return os.environ[variable]
    for folder in toolkits():
        for place in ("include", os.path.join("include", "*-linux-gnu"), os.path.join("targets", "*", "include")):
            if glob.glob(os.path.join(folder, place, header)):
                return None
    found = []
    for path in sys.path:
        found += glob.glob(os.path.join(path, "nvidia", "*", "include", header))
    return os.path.dirname(os.path.dirname(sorted(found)[-1])) if found else None


def finish(process, seconds):
    """Standard output and error of a process in a session of its own; None where time ran out: it and all it started are ended."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None


class Work:
    def __init__(self, options):
        self.options, self.rehearse = options, options.rehearse
        folder = "build-built" if options.built else "build"  # one's own build stays
        self.build = os.path.abspath(os.environ.get("PERIGEE_BUILD") or os.path.join(ROOT, folder))
        os.makedirs(self.build, exist_ok=True)
        self.scratch = os.path.join(self.build, "gpu-rehearsal" if self.rehearse else "gpu")
        self.out = os.path.abspath(options.out or self.path("results"))
        os.makedirs(self.out, exist_ok=True)
        os.makedirs(self.scratch, exist_ok=True)
        self.end = self.stage_end = time.monotonic() + options.seconds * options.slower
        self.races = {}  # started beside another stage
        self.has_cudnn = False  # is the plugin built with it? The stage `build` says so
        self.log = open(os.path.join(self.out, "log.txt"), "w", encoding="utf-8")
        self.environment = {**os.environ, "PERIGEE_BUILD": self.build, "PERIGEE_PACKAGES": "no",
                            "PERIGEE_CACHE": os.path.join(self.scratch, "cache")}
        self.kept = os.path.join(self.scratch, "results.json")
        self.results = {"stages": {}}
        if os.path.exists(self.kept) and not options.fresh:
            with open(self.kept, encoding="utf-8") as file:
                self.results = json.load(file)
        self.results["rehearsal"] = self.rehearse

    def choices(self, op):
        """What runs so far chose for an op: a key a shape, our own kernels or a vendor's algorithm."""
        path = os.path.join(self.environment["PERIGEE_CACHE"], "choices.json")
        if not os.path.exists(path):
            return {}
        with open(path, encoding="utf-8") as file:
            return {key: value for key, value in json.load(file).items() if key.startswith(op)}

    def path(self, *parts):
        return os.path.join(self.scratch, *parts)

    def say(self, text):
        print(text, flush=True)
        self.log.write(text + "\n")
        self.log.flush()

    def seconds_left(self):
        """In the whole call, and in the stage that runs."""
        return min(self.end, self.stage_end) - time.monotonic()

    def command(self, command, environment=None, cwd=ROOT, may_fail=False, seconds=None):
        """Standard output of a command; with may_fail the status and all that it printed. `seconds`: its own limit, whatever stage
        runs."""
        left = min(seconds * self.options.slower, self.end - time.monotonic()) if seconds else self.seconds_left()
        if left <= 1:
            raise Failure("no time was left (--seconds, or the stage's own limit)")
        self.log.write(f"$ {' '.join(command)}\n")
        try:
            process = subprocess.Popen(command, cwd=cwd, env={**self.environment, **(environment or {})}, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        except FileNotFoundError as missing:
            raise Failure(f"there is no {command[0]}") from missing
        said = finish(process, left)
        if said is None:
            raise Failure(f"{' '.join(command[:4])} ...: no time was left for it (--seconds, or the stage's own limit)")
        out, errors = said
        self.log.write(out[-20000:] + errors[-20000:])
        self.log.flush()
        if may_fail:
            return process.returncode, out + errors
        if process.returncode:
            last = (errors.strip() or out.strip() or "it said nothing")[-800:]
            raise Failure(f"{' '.join(command[:4])} ... ended with status {process.returncode}: {last}")
        return out

    def perigee(self, *arguments, **how):
        return self.command([os.path.join(ROOT, "perigee"), *map(str, arguments)], **how)

    def perigee_json(self, *arguments, **how):
        """The JSON text that a script of this folder prints as its last line."""
        return json.loads(self.perigee("run", *arguments, **how).strip().splitlines()[-1])

    def passed(self, name):
        return self.results["stages"].get(name, {}).get("passed", False)

    def stage(self, name, body, seconds):
        """Runs a stage for so many seconds at most; what it found or how it failed goes into the results."""
        self.stage_end = time.monotonic() + seconds
        self.say(f"== {name}, at most {min(seconds, max(0, self.end - time.monotonic())):.0f} s")
        start, before = time.monotonic(), self.results["stages"].get(name, {})
        result = {"date": datetime.date.today().isoformat()}
        try:
            body(self, result, before)
            result.setdefault("passed", True)
        except Failure as failure:
            result.update(passed=False, error=str(failure))
        except Exception:  # of the stage's own code: the next one begins all the same
            result.update(passed=False, error=traceback.format_exc()[-1500:])
        result["seconds"] = round(time.monotonic() - start, 1)
        self.results["stages"][name] = result
        self.say(f"{name}: {'passed' if result['passed'] else 'FAILED'} in {result['seconds']} s"
                 + (f": {result['error']}" if "error" in result else ""))
        with open(self.kept, "w", encoding="utf-8") as file:
            json.dump(self.results, file, indent=1)
