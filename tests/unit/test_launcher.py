"""The launcher: what it installs and when, and what it says when it cannot.

A stand-in for Python, found on a PATH that holds nothing else but the system's basic tools, plays the
interpreter, pip and uv, and records how it was called. Nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
# Long enough for a busy machine.
SECONDS = 300
TOOLS = "awk bash cat cksum cp cut df dirname du env grep head mkdir mv readlink rm sed sh sleep sort tail tr"

# Plays `python` (probe, lock, -m venv, -m pip, -m orrery.cli); as .venv/bin/uv it plays uv.
STAND_IN = r"""#!/bin/sh
case $0 in */uv)
  echo "uv index=$UV_DEFAULT_INDEX timeout=$UV_HTTP_TIMEOUT cert=$SSL_CERT_FILE $*" >>"$CALLS"
  tries=0
  while [ -n "${UV_WAITS_FOR:-}" ] && ! [ -e "$UV_WAITS_FOR" ] && [ $((tries += 1)) -lt 6000 ]; do
    sleep 0.05
  done
  [ -z "${UV_FAILS:-}" ] || { echo "$UV_FAILS" >&2; exit 1; }
  exit 0 ;;
esac
case "$1 $2 $3" in
  *ensurepip*) printf '%s\n/stand-in\n%s\n' "${VERSION:-@version@}" "$0"; exit @probe_status@ ;;
  *fcntl*) exec "$REAL_PYTHON" "$@" ;;
  "-m venv "*)
    echo "venv $*" >>"$CALLS"
    for target; do :; done
    case $* in *--clear*) rm -rf "$target" ;; esac
    mkdir -p "$target/bin" && cp "$0" "$target/bin/python" ;;
  "-m pip config") printf '%s\n' "${PIP_SETTINGS:-}" ;;
  "-m pip install")
    echo "pip $*" >>"$CALLS"
    [ -z "${PIP_FAILS:-}" ] || { echo "$PIP_FAILS" >&2; exit 1; }
    cp "$0" "${0%/*}/uv" ;;
  "-P -m orrery.cli")
    shift 3
    echo "cli $# $* project=$ORRERY_PROJECT_DIR path=$PYTHONPATH bytecode=${PYTHONDONTWRITEBYTECODE-unset}" ;;
esac
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of the launcher and its locks, and the bare machine that it runs on."""

    root: Path
    bin: Path
    calls_file: Path
    env: dict[str, str]

    def add_python(self, name: str, version: str, probe_status: int = 0) -> Path:
        """Put a stand-in called `name` on the PATH."""
        return self.add(
            name, STAND_IN.replace("@version@", version).replace("@probe_status@", str(probe_status))
        )

    def add(self, name: str, script: str) -> Path:
        """Put an executable called `name` on the PATH, in place of a system tool if need be."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)
        return path

    def run(
        self,
        *arguments: str,
        launcher: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the launcher to its end; `env` adds to a bare environment."""
        return subprocess.run(
            [str(launcher or self.root / "orrery"), *arguments],
            env={**self.env, **(env or {})},
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def calls(self, tool: str = "") -> list[str]:
        """The recorded calls, oldest first, of `tool` (venv, pip or uv) or of all."""
        text = self.calls_file.read_text() if self.calls_file.exists() else ""
        return [line for line in text.splitlines() if line.startswith(tool)]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "a path with spaces" / "repo"
    tools = tmp_path / "bin"
    home = tmp_path / "home"
    for folder in (root, tools, home):
        folder.mkdir(parents=True)
    for name in ("orrery", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, root / name)
    for name in TOOLS.split():
        found = shutil.which(name, path=f"/usr/bin:/bin:{os.environ['PATH']}")
        assert found, f"{name} is not on this machine"
        (tools / name).symlink_to(found)
    calls_file = tmp_path / "calls"
    env = {"PATH": str(tools), "HOME": str(home), "CALLS": str(calls_file), "REAL_PYTHON": sys.executable}
    return Checkout(root, tools, calls_file, env)


def installed(checkout: Checkout) -> Checkout:
    """Install once and forget the calls."""
    checkout.add_python("python3.12", "3.12.1")
    first = checkout.run("--version")
    assert first.returncode == 0, first.stderr
    checkout.calls_file.unlink()
    return checkout


# ---------------------------------------------------------------- the first start


def test_first_start_installs_the_lock_and_hands_over(checkout: Checkout) -> None:
    checkout.add_python("python3.12", "3.12.1")

    done = checkout.run("run", "two words", env={"PYTHONPATH": "/elsewhere", "PYTHONDONTWRITEBYTECODE": "1"})

    root = checkout.root
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"cli 2 run two words project={root} path={root}/include:/elsewhere bytecode=unset\n"
    )
    assert re.search(r"Installing \d{3} packages into \.venv \(once, about a minute\)", done.stderr)
    (uv,) = checkout.calls("uv")
    assert uv.endswith(f"--require-hashes --compile-bytecode --requirements={root}/requirements.lock")
    assert "--require-hashes" in checkout.calls("pip")[0]
    pinned = (root / ".venv/uv.txt").read_text()
    assert re.match(r"uv==[\d.]+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+\Z", pinned)


def test_python_3_12_comes_first_and_a_shim_that_fails_is_passed_over(checkout: Checkout) -> None:
    checkout.add("python3.12", "#!/bin/sh\necho 'no such version' >&2\nexit 127\n")
    checkout.add_python("python3", "3.14.0")
    checkout.add_python("python3.11", "3.11.7")

    done = checkout.run()

    assert done.returncode == 0, done.stderr
    assert "/stand-in" in (checkout.root / ".venv/orrery-base.stamp").read_text()
    assert "3.11.7" in (checkout.root / ".venv/orrery-base.stamp").read_text()


@pytest.mark.parametrize("command", ["test", "lint", "run shop --stand-ins"])
def test_tools_are_installed_for_what_needs_them_only(checkout: Checkout, command: str) -> None:
    installed(checkout)

    assert checkout.run(*command.split()).returncode == 0
    assert checkout.run(*command.split()).returncode == 0
    assert checkout.run("dbt", "test").returncode == 0

    root = checkout.root
    (uv,) = checkout.calls("uv")
    assert uv.endswith(f"--requirements={root}/requirements.lock --requirements={root}/requirements-dev.lock")


@pytest.mark.parametrize(
    "command", ["test --help", "lint -h", "test --only unit --help", "run a --stand-ins -h"]
)
def test_help_needs_no_tools(checkout: Checkout, command: str) -> None:
    installed(checkout)

    done = checkout.run(*command.split())

    assert (done.returncode, done.stderr) == (0, "")
    assert checkout.calls() == []


@pytest.mark.parametrize(
    ("env", "seen"),
    [
        ({"PIP_SETTINGS": ":env:.index-url='http://mirror/simple'"}, "index=http://mirror/simple "),
        ({"PIP_SETTINGS": "global.index-url='http://conf/simple'"}, "index=http://conf/simple "),
        (
            {"PIP_SETTINGS": "global.index-url='http://conf/'", "UV_DEFAULT_INDEX": "http://own/"},
            "index=http://own/ ",
        ),
        ({"PIP_SETTINGS": "global.index-url='http://conf/'", "UV_INDEX_URL": "http://own/"}, "index= "),
        ({"PIP_SETTINGS": ":env:.default-timeout='180'"}, "timeout=180 "),
        ({"PIP_SETTINGS": "global.cert='/etc/company.pem'"}, "cert=/etc/company.pem "),
    ],
)
def test_uv_takes_over_the_settings_of_pip(checkout: Checkout, env: dict[str, str], seen: str) -> None:
    checkout.add_python("python3.12", "3.12.1")

    assert checkout.run(env=env).returncode == 0

    assert seen in checkout.calls("uv")[0]


# ---------------------------------------------------------------- later starts


def test_later_starts_install_nothing_and_are_quiet(checkout: Checkout) -> None:
    installed(checkout)
    for name in checkout.bin.glob("python*"):
        name.unlink()

    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = checkout.run("status")
        seconds.append(time.monotonic() - started)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("cli 1 status ")

    assert checkout.calls() == []
    # The best: the others tell how busy the machine is.
    assert min(seconds) < 0.3


def test_launcher_works_through_a_symlink_and_from_another_folder(checkout: Checkout, tmp_path: Path) -> None:
    installed(checkout)
    (tmp_path / "links").mkdir()
    first = checkout.root / "alias"
    first.symlink_to("orrery")
    second = tmp_path / "links" / "orrery"
    second.symlink_to(first)

    done = checkout.run("status", launcher=second, cwd=tmp_path)

    assert f"project={checkout.root} " in done.stdout
    assert checkout.calls() == []


def test_the_project_may_be_another_one(checkout: Checkout, tmp_path: Path) -> None:
    installed(checkout)
    done = checkout.run("build", env={"ORRERY_PROJECT_DIR": str(tmp_path)})
    # The program is that of the launcher.
    assert f"project={tmp_path} path={checkout.root}/include" in done.stdout


def test_a_changed_lock_is_installed_into_the_same_venv(checkout: Checkout) -> None:
    installed(checkout)
    with (checkout.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")

    assert checkout.run().returncode == 0

    assert len(checkout.calls("uv")) == 1
    assert "--clear" not in checkout.calls("venv")[0]


def test_packages_of_an_earlier_lock_go_and_all_others_stay(checkout: Checkout) -> None:
    installed(checkout)
    lock = checkout.root / "requirements.lock"
    own = "click==8.5.1 \\\n    --hash=sha256:0\n"
    tool = "pytest==9.2.0 \\\n    --hash=sha256:0\n"
    (checkout.root / "requirements-dev.lock").write_text(tool)
    lock.write_text(own + "old-one==1 \\\n    --hash=sha256:0\nold.two==1 \\\n    --hash=sha256:0\n")
    assert checkout.run("test").returncode == 0
    checkout.calls_file.unlink()

    lock.write_text(own)
    assert checkout.run().returncode == 0
    lock.write_text(f"{own}# again\n")
    assert checkout.run().returncode == 0

    python = checkout.root / ".venv/bin/python"
    uninstalled = [call for call in checkout.calls("uv") if "uninstall" in call]
    # Neither what the tests need nor what the user has added.
    assert [call.partition("pip uninstall ")[2] for call in uninstalled] == [
        f"--python {python} old-one old.two"
    ]
    assert not any("sync" in call or "--exact" in call for call in checkout.calls("uv"))


def test_another_python_makes_the_venv_anew(checkout: Checkout) -> None:
    installed(checkout)
    other = checkout.add_python("python-other", "3.13.0")

    assert checkout.run(env={"ORRERY_PYTHON": str(other)}).returncode == 0
    assert checkout.run(env={"ORRERY_PYTHON": str(other)}).returncode == 0

    assert "--clear" in checkout.calls("venv")[0]
    assert len(checkout.calls("uv")) == 1


def test_a_moved_checkout_makes_the_venv_anew(checkout: Checkout) -> None:
    installed(checkout)
    moved = checkout.root.with_name("moved")
    checkout.root.rename(moved)

    assert checkout.run(launcher=moved / "orrery", cwd=moved).returncode == 0

    assert "--clear" in checkout.calls("venv")[0]


def test_a_linked_venv_of_another_folder_is_left_alone(checkout: Checkout, tmp_path: Path) -> None:
    installed(checkout)
    venv, other = checkout.root / ".venv", tmp_path / "other"
    venv.rename(other)
    stamp = other / "orrery-base.stamp"
    stamp.write_text("\n".join([str(tmp_path), *stamp.read_text().splitlines()[1:]]) + "\n")
    venv.symlink_to(other)
    before = sorted(path.name for path in other.iterdir())

    assert checkout.run().returncode == 0

    assert sorted(path.name for path in other.iterdir()) == before
    assert not venv.is_symlink()


def test_a_failed_installation_is_completed_by_the_next_start(checkout: Checkout) -> None:
    checkout.add_python("python3.12", "3.12.1")
    assert checkout.run(env={"UV_FAILS": "error: something new"}).returncode == 2

    done = checkout.run("status")

    assert done.returncode == 0, done.stderr
    assert "cli 1 status" in done.stdout
    assert "--clear" in checkout.calls("venv")[1]


def test_starts_at_the_same_time_install_once(checkout: Checkout, tmp_path: Path) -> None:
    checkout.add_python("python3.12", "3.12.1")
    launcher = [str(checkout.root / "orrery"), "status"]
    go_on = tmp_path / "go-on"
    env = checkout.env | {"UV_WAITS_FOR": str(go_on)}
    logs = [tmp_path / f"{number}.err" for number in range(3)]

    def waiting() -> int:
        return sum("Another ./orrery is installing" in log.read_text() for log in logs)

    starts = []
    try:
        for log in logs:
            with log.open("w") as file:
                starts.append(
                    subprocess.Popen(launcher, env=env, text=True, stdout=subprocess.PIPE, stderr=file)
                )
        wait_for("two wait for the third", lambda: waiting() == 2, SECONDS)
    finally:
        go_on.touch()
        results = [(start.communicate(timeout=SECONDS)[0], start.returncode) for start in starts]

    assert [code for _, code in results] == [0, 0, 0], [log.read_text() for log in logs]
    assert all(out.startswith("cli 1 status ") for out, _ in results)
    assert len(checkout.calls("uv")) == 1
    assert waiting() == 2


# ---------------------------------------------------------------- what cannot be done


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a start that ended with the launcher's own error."""
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("orrery: ") == 1
    return done.stderr


def test_no_python(checkout: Checkout) -> None:
    message = failure(checkout.run())

    assert "no suitable Python: 3.11, 3.12 or 3.13 is needed" in message
    assert "Found: nothing." in message
    assert "ORRERY_PYTHON=" in message


@pytest.mark.parametrize("version", ["2.7.18", "3.6.15", "3.10.13", "3.14.0", "3.1.3"])
def test_unsuitable_pythons_are_listed_with_their_versions(checkout: Checkout, version: str) -> None:
    shim = checkout.add("python3.12", "#!/bin/sh\nexit 127\n")
    python = checkout.add_python("python3", version)

    message = failure(checkout.run())

    assert f"{python} ({version})" in message
    assert f"{shim} (does not run)" in message
    assert checkout.calls() == []


def test_the_asked_python_is_not_replaced_by_another(checkout: Checkout) -> None:
    checkout.add_python("python3.12", "3.12.1")
    old = checkout.add_python("python-old", "3.9.2")

    assert f"{old} (3.9.2)" in failure(checkout.run(env={"ORRERY_PYTHON": str(old)}))
    assert "Looked for: /nowhere/python " in failure(checkout.run(env={"ORRERY_PYTHON": "/nowhere/python"}))


def test_python_without_venv_names_the_package(checkout: Checkout) -> None:
    python = checkout.add_python("python3", "3.11.2", probe_status=1)

    message = failure(checkout.run())

    assert f"{python} (3.11.2 without venv and ensurepip)" in message
    assert "apt install python3-venv" in message
    assert not (checkout.root / ".venv").exists()


def test_too_little_disk_space_stops_before_anything_is_made(checkout: Checkout) -> None:
    checkout.add_python("python3.12", "3.12.1")
    header = "Filesystem 1024-blocks Used Available Capacity Mounted on"
    checkout.add("df", f"#!/bin/sh\necho '{header}\n/dev/a b 9 9 812345  97% /a mount 5% x'\n")

    message = failure(checkout.run())

    assert f"not enough free space in {checkout.root}" in message
    assert "need 2500 MB, 812 MB are free" in message
    assert not (checkout.root / ".venv").exists()


def test_what_is_installed_already_counts_as_space(checkout: Checkout) -> None:
    installed(checkout)
    checkout.add("df", "#!/bin/sh\necho 'x\n/dev/a 9 9 700000  97% /'\n")
    checkout.add("du", "#!/bin/sh\nprintf '1900000\\t.venv'\n")

    assert checkout.run("test").returncode == 0


def test_a_folder_that_cannot_be_written(checkout: Checkout) -> None:
    checkout.add_python("python3.12", "3.12.1")
    (checkout.root / ".orrery").write_text("a file where the folder belongs")

    assert f"cannot write to {checkout.root}/.orrery" in failure(checkout.run())


@pytest.mark.parametrize(
    ("output", "reason", "advice"),
    [
        (
            "error: Failed to fetch: `http://x/`\n  Caused by: tcp connect error",
            "registry",
            "UV_DEFAULT_INDEX",
        ),
        ("  Caused by: client error (Connect)\n  dns error: failed to lookup", "registry", "HTTPS_PROXY"),
        ("invalid peer certificate: UnknownIssuer", "registry", "PIP_CERT"),
        (
            "error: Failed to extract\n  No space left on device (os error 28)",
            "the disk is full",
            "Free some",
        ),
        ("failed to create file: Permission denied (os error 13)", "cannot be written", "Check the owner"),
        ("error: Hash mismatch for `a==1`", "installing the packages failed.\n", "Run ./orrery again"),
    ],
)
def test_a_failure_of_uv_is_explained_and_quoted(
    checkout: Checkout, output: str, reason: str, advice: str
) -> None:
    checkout.add_python("python3.12", "3.12.1")

    message = failure(checkout.run(env={"UV_FAILS": output}))

    assert reason in message
    assert advice in message
    assert output.splitlines()[-1] in message
    assert f"{checkout.root}/.orrery/logs/install.log" in message


def test_unreachable_registry_with_the_real_pip(checkout: Checkout) -> None:
    base = getattr(sys, "_base_executable", sys.executable)
    index = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}

    message = failure(checkout.run(env={"ORRERY_PYTHON": base, **index}))

    assert "installing uv failed: the package registry cannot be reached" in message
    assert "PIP_INDEX_URL" in message
    assert "No matching distribution found for uv==" in message
    assert not list(checkout.root.glob(".venv/orrery-*.stamp"))


# ---------------------------------------------------------------- the lock files


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_locks_hold_every_direct_requirement(name: str) -> None:
    lock = (ROOT / f"{name}.lock").read_text()
    wanted = re.findall(r"^[\w.-]+==\S+", (ROOT / f"{name}.txt").read_text(), re.MULTILINE)

    assert wanted
    assert [pin for pin in wanted if f"\n{pin.lower()} " not in lock] == []


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_locks_name_no_registry_and_no_machine(name: str) -> None:
    lock = (ROOT / f"{name}.lock").read_text()

    assert re.findall(r"^--.*|https?://\S+|file:\S+", lock, re.MULTILINE) == []


def test_both_locks_agree() -> None:
    pins = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
    base = dict(pins.findall((ROOT / "requirements.lock").read_text()))
    tools = dict(pins.findall((ROOT / "requirements-dev.lock").read_text()))

    assert {name: version for name, version in tools.items() if base.get(name, version) != version} == {}
