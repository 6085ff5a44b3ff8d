"""Every failure class is provoked, in this process or in a child, and found from the exception, from the log, or from both."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentwire.errors import NonFiniteLossError
from latentwire.experiments.failures.classes import ACTIONS, FOLLOWS, MENDS, RETRIES, SYSTEMIC, Verdict, classify, systemic_stop
from latentwire.experiments.registry.model import Attempt, ErrorClass, State

ROOT = Path(__file__).resolve().parents[2]


def child(code: str, *, interpreter: tuple[str, ...] = (sys.executable, "-c")) -> Verdict:
    """The verdict over a process that really ran ``code``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*interpreter, code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode != 0, done.stderr
    return classify(exit_code=done.returncode, log_text=done.stdout + done.stderr)


def raised(provoke: Callable[[], object]) -> tuple[Verdict, Verdict]:
    """The verdicts over an exception that was really raised: from itself, and from the traceback a log would hold."""
    try:
        provoke()
    except BaseException as error:
        return classify(exit_code=1, exception=error), classify(exit_code=1, log_text=f"step 3\n{traceback.format_exc()}")
    raise AssertionError("nothing was raised")


def load_from_hub() -> None:
    from latentwire.models.source import resolve

    assert resolve("org-that-is-not-cached/model").config


def huggingface_download() -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download("org-that-is-not-cached/model", "config.json")


def hub_api() -> None:
    from huggingface_hub import HfApi

    HfApi().model_info("org-that-is-not-cached/model")


def ragged_batch() -> None:
    from latentwire.models.source import resolve

    resolve("nano-llama").tokenizer(["a b", "a b c d"], return_tensors="pt")


def missing_rows(folder: str = "/nowhere/rows") -> None:
    from latentwire.data.readers import read_task
    from latentwire.data.task import load_task

    read_task(load_task("trec"), "train", data_dir=folder)


def wrong_config() -> None:
    from latentwire.config import load_config

    load_config(ROOT / "configs" / "nano.yaml", ["training.lrr=1"])


def look_up_label() -> None:
    names = {"positive": 0}
    row = {"label": "mixed"}
    assert names[row["label"]]


def refused_connection() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    socket.create_connection(("127.0.0.1", port), timeout=5)


def slow_answer() -> None:
    """A server that accepts and says nothing: the timeout is the network's, not the job's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=0.05)
        client.recv(1)


def wrapped_disk_error() -> None:
    from latentwire.files import write_text

    write_text(Path("/proc/self/nowhere/file.json"), "x")


IN_PROCESS: list[tuple[str, Callable[[], object], ErrorClass]] = [
    ("torch allocation", lambda: torch.ones(10**15), ErrorClass.OOM),
    ("numpy allocation", lambda: __import__("numpy").ones(10**15), ErrorClass.OOM),
    ("nan sampling", lambda: torch.multinomial(torch.tensor([float("nan"), 1.0]), 1), ErrorClass.NAN),
    ("missing module", lambda: __import__("a_module_that_nobody_has"), ErrorClass.IMPORT),
    ("missing name", lambda: exec("from json import jumps"), ErrorClass.IMPORT),
    ("other device", lambda: torch.ones(2) + torch.ones(2, device="meta"), ErrorClass.DEVICE_MISMATCH),
    ("dtype of a product", lambda: torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.bfloat16), ErrorClass.DTYPE_MISMATCH),
    ("dtype of a layer", lambda: torch.nn.Linear(2, 2)(torch.ones(1, 2).bfloat16()), ErrorClass.DTYPE_MISMATCH),
    ("dtype of a convolution", lambda: torch.nn.Conv1d(1, 1, 1)(torch.ones(1, 1, 2).bfloat16()), ErrorClass.DTYPE_MISMATCH),
    (
        "dtype of labels",
        lambda: torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(2).int()),
        ErrorClass.DTYPE_MISMATCH,
    ),
    ("dtype without kernel", lambda: torch.linalg.svd(torch.ones(2, 2).half()), ErrorClass.DTYPE_MISMATCH),
    ("shape of a product", lambda: torch.ones(2, 3) @ torch.ones(4, 5), ErrorClass.SHAPE),
    ("shape of a sum", lambda: torch.ones(3) + torch.ones(4), ErrorClass.SHAPE),
    ("shape of a stack", lambda: torch.stack([torch.ones(3), torch.ones(4)]), ErrorClass.SHAPE),
    (
        "weights of another model",
        lambda: torch.nn.Linear(2, 2).load_state_dict(torch.nn.Linear(2, 3).state_dict()),
        ErrorClass.SHAPE,
    ),
    ("ragged batch", ragged_batch, ErrorClass.SHAPE),
    ("token outside the vocabulary", lambda: torch.nn.Embedding(3, 2)(torch.tensor([9])), ErrorClass.SHAPE),
    ("no folder of rows", missing_rows, ErrorClass.DATA),
    ("no file", lambda: Path("/nowhere/rows.jsonl").read_text(), ErrorClass.DATA),
    ("label lookup", look_up_label, ErrorClass.DATA),
    ("broken JSON", lambda: __import__("json").loads('{"a": '), ErrorClass.DATA),
    ("wrong key", wrong_config, ErrorClass.CONFIG),
    ("model through latentwire, offline", load_from_hub, ErrorClass.HUB_ACCESS),
    ("file of the Hub, offline", huggingface_download, ErrorClass.HUB_ACCESS),
    ("API of the Hub, offline", hub_api, ErrorClass.HUB_ACCESS),
    ("connection refused", refused_connection, ErrorClass.NETWORK),
    ("silent server", slow_answer, ErrorClass.NETWORK),
    ("no such host", lambda: socket.getaddrinfo("nowhere.invalid", 80), ErrorClass.NETWORK),
    ("error of the operating system, retold", wrapped_disk_error, ErrorClass.DATA),
    ("something else", lambda: [][0], ErrorClass.UNKNOWN),
]


@pytest.mark.parametrize(("provoke", "expected"), [case[1:] for case in IN_PROCESS], ids=[case[0] for case in IN_PROCESS])
def test_a_real_exception_lands_in_its_class(provoke: Callable[[], object], expected: ErrorClass) -> None:
    from_exception, from_log = raised(provoke)
    assert (from_exception.error_class, from_log.error_class) == (expected, expected)
    assert from_exception.message
    assert from_log.where is not None
    assert from_exception.where == from_log.where


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_{what}, ({most}, {most})); "
CHILDREN = {
    "address space": (LIMITED.format(what="AS", most=200 << 20) + "x = bytearray(1 << 30)", ErrorClass.OOM),
    "import": ("import a_module_that_nobody_has", ErrorClass.IMPORT),
    "file size": (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        + LIMITED.format(what="FSIZE", most=1000)
        + "import tempfile; f = tempfile.TemporaryFile(buffering=0); [f.write(b'x' * 600) for _ in range(3)]",
        ErrorClass.DISK_QUOTA,
    ),
    "file size, by signal": (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); "
        + LIMITED.format(what="FSIZE", most=1000)
        + "import tempfile; f = tempfile.TemporaryFile(buffering=0); [f.write(b'x' * 600) for _ in range(3)]",
        ErrorClass.DISK_QUOTA,
    ),
    "alarm": ("import signal, time; signal.alarm(1); time.sleep(30)", ErrorClass.TIMEOUT),
    "child takes too long": ("import subprocess; subprocess.run(['sleep', '30'], timeout=0.1)", ErrorClass.TIMEOUT),
    "SIGTERM": ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", ErrorClass.PREEMPTED),
    "SIGKILL": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ErrorClass.UNKNOWN),
}


@pytest.mark.parametrize(("code", "expected"), CHILDREN.values(), ids=CHILDREN)
def test_a_real_process_that_ended_badly_lands_in_its_class(code: str, expected: ErrorClass) -> None:
    assert child(code).error_class is expected


def test_a_full_device_is_a_disk_failure() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full on this system")
    verdict = child("import os; f = os.open('/dev/full', os.O_WRONLY); os.write(f, b'x')")
    assert verdict.error_class is ErrorClass.DISK_QUOTA
    assert "No space left" in verdict.message


def test_a_folder_of_somebody_else_is_a_permission_failure(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    # root may write anywhere, so the child gives up its rights first
    code = f"import os; os.getuid() or (os.setgid(65534), os.setuid(65534)); open({str(folder / 'x')!r}, 'w')"
    assert child(code).error_class is ErrorClass.PERMISSION
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    script.chmod(0o644)
    assert child(str(script), interpreter=("bash", "-c")).error_class is ErrorClass.PERMISSION


def test_the_shell_and_timeout_speak_by_exit_codes() -> None:
    assert child("a-command-that-nobody-has", interpreter=("bash", "-c")).error_class is ErrorClass.IMPORT
    assert child("timeout 0.1 sleep 5", interpreter=("bash", "-c")).error_class is ErrorClass.TIMEOUT
    assert child("kill -USR2 $$", interpreter=("bash", "-c")).error_class is ErrorClass.PREEMPTED


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "configs/nano.yaml", "--set", "training.lrr=1", "--dry-run"], ErrorClass.CONFIG),
        (["train", "configs/no.yaml"], ErrorClass.CONFIG),
        (["train", "configs/nano.yaml", "--no-such-option"], ErrorClass.CONFIG),
        (["train", "configs/nano.yaml", "--set", "task=trec", "--set", "data.data_dir=/nowhere"], ErrorClass.DATA),
        (["eval", "/nowhere/run"], ErrorClass.DATA),
    ],
)
def test_one_line_errors_of_the_command_line_land_in_their_class(
    arguments: list[str], expected: ErrorClass, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentwire.cli.app import main

    monkeypatch.chdir(ROOT)
    exit_code = main(arguments)
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert classify(exit_code=exit_code, log_text=printed).error_class is expected


def test_work_that_saved_and_stopped_is_preempted() -> None:
    code = (
        "import os, signal, sys\n"
        "from latentwire.cli.app import guarded\n"
        "from latentwire.cli.console import stop_on_signals\n"
        "from latentwire.errors import StoppedEarlyError\n"
        "def work():\n"
        "    with stop_on_signals() as stop:\n"
        "        os.kill(os.getpid(), signal.SIGUSR2)\n"
        "        if stop(): raise StoppedEarlyError('stopped at step 3 of 9, all saved; go on with --resume')\n"
        "sys.exit(guarded(work))\n"
    )
    verdict = child(code)
    assert verdict.error_class is ErrorClass.PREEMPTED
    assert "step 3 of 9" in verdict.message


#: what cannot be provoked without a GPU, a full file system of others, the network or a real scheduler: real messages, verbatim
REAL_MESSAGES = [
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 MiB. GPU 0 has a total capacity of 23.65 GiB of which "
        "11.06 MiB is free. Including non-PyTorch memory, this process has 23.60 GiB memory in use.",
        ErrorClass.OOM,
    ),
    ("RuntimeError: CUDA error: out of memory", ErrorClass.OOM),
    ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", ErrorClass.OOM),
    (
        "slurmstepd: error: Detected 1 oom_kill event in StepId=118.batch. Some of the step tasks have been OOM Killed.",
        ErrorClass.OOM,
    ),
    ("slurmstepd: error: *** JOB 118 ON n01 CANCELLED AT 2025-11-01T12:00:00 DUE TO TIME LIMIT ***", ErrorClass.TIMEOUT),
    ("slurmstepd: error: *** JOB 118 ON n01 CANCELLED AT 2025-11-01T12:00:00 DUE TO PREEMPTION ***", ErrorClass.PREEMPTED),
    (
        "slurmstepd: error: *** JOB 118 ON n01 CANCELLED AT 2025-11-01T12:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG "
        "FOR DETAILS ***",
        ErrorClass.PREEMPTED,
    ),
    ("slurmstepd: error: *** STEP 118.0 ON n01 CANCELLED AT 2025-11-01T12:00:00 ***", ErrorClass.PREEMPTED),
    (
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        ErrorClass.CONFIG,
    ),
    ("OSError: [Errno 122] Disk quota exceeded: '/home/someone/.cache/huggingface/hub'", ErrorClass.DISK_QUOTA),
    (
        'safetensors_rust.SafetensorError: Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space '
        'left on device" })',
        ErrorClass.DISK_QUOTA,
    ),
    (
        "RuntimeError: Data processing error: CAS service error : IO Error: Disk quota exceeded (os error 122)",
        ErrorClass.DISK_QUOTA,
    ),
    ("OSError: [Errno 30] Read-only file system: '/projects/x'", ErrorClass.PERMISSION),
    (
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (when "
        "checking argument for argument mat1 in method wrapper_CUDA_addmm)",
        ErrorClass.DEVICE_MISMATCH,
    ),
    (
        "RuntimeError: Expected all tensors to be on the same device, but got index is on cpu, different from other tensors on "
        "cuda:0 (when checking argument in method wrapper_CUDA__index_select)",
        ErrorClass.DEVICE_MISMATCH,
    ),
    (
        "RuntimeError: Input type (torch.cuda.FloatTensor) and weight type (torch.FloatTensor) should be the same",
        ErrorClass.DEVICE_MISMATCH,
    ),
    ("RuntimeError: No CUDA GPUs are available", ErrorClass.DEVICE_MISMATCH),
    ("RuntimeError: expected scalar type Float but found BFloat16", ErrorClass.DTYPE_MISMATCH),
    (
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-66f4b037)\n\nCannot access gated repo for "
        "url https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct/resolve/main/config.json.\nAccess to "
        "model meta-llama/Llama-3.1-8B-Instruct is restricted. You must have access to it and be authenticated to access it. "
        "Please log in.",
        ErrorClass.HUB_ACCESS,
    ),
    (
        "datasets.exceptions.DatasetNotFoundError: Dataset 'x/y' doesn't exist on the Hub or cannot be accessed.",
        ErrorClass.HUB_ACCESS,
    ),
    (
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='example.org', port=443): Max retries exceeded with url: /x "
        "(Caused by NewConnectionError('Failed to establish a new connection: [Errno 101] Network is unreachable'))",
        ErrorClass.NETWORK,
    ),
    ("ImportError: libcudart.so.12: cannot open shared object file: No such file or directory", ErrorClass.IMPORT),
    ("bash: line 3: /scratch/env/bin/python: No such file or directory", ErrorClass.DATA),
    ("ValueError: Input X contains NaN.", ErrorClass.NAN),
]


@pytest.mark.parametrize(("text", "expected"), REAL_MESSAGES, ids=[text[:60] for text, _ in REAL_MESSAGES])
def test_a_real_message_lands_in_its_class(text: str, expected: ErrorClass) -> None:
    assert classify(exit_code=1, log_text=f"loading\n{text}\n").error_class is expected


def test_the_last_error_wins_and_followers_do_not() -> None:
    log = (
        "RuntimeError: CUDA error: out of memory\n"
        "trying again with a smaller batch\n"
        "Traceback (most recent call last):\n"
        '  File "/home/x/latentwire/methods/lora.py", line 7, in fit\n'
        "    import peft\n"
        "ModuleNotFoundError: No module named 'peft'\n"
        "srun: error: n01: task 0: Exited with exit code 1\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    )
    verdict = classify(exit_code=1, log_text=log)
    assert verdict == Verdict(ErrorClass.IMPORT, "ModuleNotFoundError: No module named 'peft'", "latentwire/methods/lora.py:7")


def test_words_in_ordinary_lines_are_no_errors() -> None:
    log = "UserWarning: out of memory is possible\nstep 3 loss nan-safe 0.2\nretrying after Connection refused\nall is well\n"
    verdict = classify(exit_code=1, log_text=log)
    assert verdict.error_class is ErrorClass.UNKNOWN
    assert "all is well" in verdict.message


def test_who_ended_the_process_explains_the_signal() -> None:
    limit = "slurmstepd: error: *** JOB 118 ON n01 CANCELLED AT 2025-11-01T12:00:00 DUE TO TIME LIMIT ***\n"
    assert classify(exit_code=143, log_text=limit).error_class is ErrorClass.TIMEOUT
    assert (
        classify(exit_code=-9, log_text="slurmstepd: error: Detected 1 oom_kill event in StepId=1.0.").error_class is ErrorClass.OOM
    )
    # an error of an earlier try in the same log did not kill this process
    assert classify(exit_code=143, log_text="ModuleNotFoundError: No module named 'peft'\n").error_class is ErrorClass.PREEMPTED
    # saved and stopped: it goes on, whatever made it stop
    assert classify(exit_code=75, log_text=limit).error_class is ErrorClass.PREEMPTED


def test_what_a_crashing_process_said_explains_its_signal() -> None:
    log = "terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: out of memory\n"
    assert child(f"import os, sys; sys.stderr.write({log!r}); sys.stderr.flush(); os.abort()").error_class is ErrorClass.OOM
    assert "SIGSEGV" in child("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").message


def test_an_exception_of_no_known_class_yields_to_its_cause() -> None:
    def provoke() -> None:
        try:
            torch.ones(2, 3) @ torch.ones(4, 5)
        except RuntimeError as error:
            raise RuntimeError("step failed") from error

    from_exception, from_log = raised(provoke)
    assert (from_exception.error_class, from_log.error_class) == (ErrorClass.SHAPE, ErrorClass.SHAPE)


def test_a_loss_that_is_no_number_is_nan_from_exception_and_from_the_line_it_prints() -> None:
    error = NonFiniteLossError("loss is no finite number at step 3 of 9 (the last finite loss was 1.2); lower training.lr")
    assert classify(exit_code=1, exception=error).error_class is ErrorClass.NAN
    assert classify(exit_code=1, log_text=f"error: {error}\n").error_class is ErrorClass.NAN


def test_rows_that_cannot_be_read_are_a_fault_of_the_data() -> None:
    for line in ("'/x/test.jsonl', line 2: not UTF-8; save the file as UTF-8", "'/x/test.jsonl', line 2: not JSON (x)"):
        assert classify(exit_code=1, log_text=f"error: {line}\n").error_class is ErrorClass.DATA


def test_every_class_says_what_follows() -> None:
    for found in ErrorClass:
        assert ACTIONS[found].startswith(FOLLOWS[found].value)
        assert MENDS[found]
        assert RETRIES[found] >= 0
    # what nobody has mended is not tried again
    assert all(RETRIES[found] == 0 for found in SYSTEMIC)


def stop_after(*failures: tuple[ErrorClass, str], since: str = "") -> str | None:
    """What stops a queue after these failures, an hour apart from 10 o'clock on."""
    attempts = [
        Attempt(1, "o", State.FAILED, ended=f"2025-11-01T{10 + hour}:00:00Z", error_class=found, error=message)
        for hour, (found, message) in enumerate(failures)
    ]
    return systemic_stop(attempts, since=since)


def test_the_same_missing_module_twice_stops_the_queue_with_one_message() -> None:
    messages = [child("import a_module_that_nobody_has").message for _ in range(2)]
    assert stop_after((ErrorClass.IMPORT, messages[0])) is None
    assert stop_after((ErrorClass.IMPORT, messages[0]), (ErrorClass.IMPORT, "No module named 'peft'")) is None
    line = stop_after(*((ErrorClass.IMPORT, message) for message in messages))
    assert line is not None
    assert "twice" in line
    assert "a_module_that_nobody_has" in line
    assert "make setup" in line
    assert "--mark-rerun-all-failed" in line
    assert "\n" not in line


def test_failures_of_an_experiment_never_stop_the_queue_and_those_of_the_place_do() -> None:
    assert stop_after(*[(ErrorClass.OOM, "CUDA out of memory")] * 5) is None
    full = [(ErrorClass.DISK_QUOTA, f"Disk quota exceeded: {path}") for path in "ab"]
    assert stop_after(full[0]) is None
    assert stop_after(*full) is not None


def test_failures_of_other_workers_count_from_the_start_of_the_job() -> None:
    failures = [(ErrorClass.IMPORT, "No module named 'peft'")] * 2
    assert stop_after(*failures, since="2025-11-01T10:30:00Z") is None
    assert stop_after(*failures, since="2025-11-01T09:00:00Z") is not None
