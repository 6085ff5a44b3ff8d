"""The messages that failures leave behind: data only, read by ``latentwire.experiments.failures.classes``.

Every pattern is matched against real messages of torch, numpy, transformers, huggingface_hub, datasets, safetensors, the
operating system, the shell and Slurm. Within one message the first rule that fits decides, so what is specific stands first.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import errno
import re
from re import Pattern
from typing import NamedTuple

from latentwire.experiments.registry.model import ErrorClass


class Rule(NamedTuple):
    """``explains_kill``: the message is written by who ended the process, so it outranks the bare signal number."""

    pattern: Pattern[str]
    error_class: ErrorClass
    explains_kill: bool = False


def _rules(error_class: ErrorClass, *patterns: str, explains_kill: bool = False) -> tuple[Rule, ...]:
    return tuple(Rule(re.compile(pattern), error_class, explains_kill) for pattern in patterns)


#: lines written by the scheduler or the kernel about a process that they ended
SCHEDULER_RULES: tuple[Rule, ...] = (
    *_rules(ErrorClass.TIMEOUT, r"CANCELLED AT \S+ DUE TO TIME LIMIT", explains_kill=True),
    *_rules(
        ErrorClass.PREEMPTED,
        r"CANCELLED AT \S+ DUE TO (?:PREEMPTION|NODE FAILURE|JOB REQUEUE|JOB NOT RESPONDING)",
        r"CANCELLED AT \S+ \*\*\*",
        r"Job \d+ (?:has been )?(?:preempted|requeued)",
        explains_kill=True,
    ),
    *_rules(
        ErrorClass.OOM,
        r"Detected \d+ oom[_-]kill event",
        r"[Ee]xceeded (?:job |step )?memory limit",
        r"cgroup out-of-memory handler",
        r"oom-kill:constraint=",
        r"Out of memory: Killed process \d+",
        explains_kill=True,
    ),
)

#: lines that only repeat that something else failed; never the cause
FOLLOWERS = re.compile(
    r"^\s*(?:srun: error: .*(?:Exited with exit code|Terminated|task \d+: Killed)"
    r"|srun: (?:Terminating|Force Terminated|launch/slurm: .*)"
    r"|torch\.distributed\.elastic\.multiprocessing\.errors\.ChildFailedError|subprocess\.CalledProcessError"
    r"|E\d{4} .*failed \(exitcode:|make(?:\[\d+\])?: \*\*\*)"
)

#: what the text of one error says
MESSAGE_RULES: tuple[Rule, ...] = (
    *SCHEDULER_RULES,
    *_rules(
        ErrorClass.OOM,
        r"[Oo]ut of memory",
        r"can't allocate memory",
        r"[Cc]annot allocate memory",
        r"Unable to allocate [\d.]+ .?i?B for an array",
        r"(?:CUBLAS|CUDNN)_STATUS_ALLOC_FAILED",
        r"DataLoader worker \(pid.* is killed by signal: (?:Killed|Bus error)",
    ),
    *_rules(
        ErrorClass.NAN,
        r"loss is (?:nan|inf|-inf|not finite)",
        r"[Ll]oss is no finite number",
        r"returned nan values in its \d+th output",
        r"norm of order .* is non-finite",
        r"probability tensor contains either `inf`, `nan`",
        r"[Ii]nput \w*\s?contains (?:NaN|infinity)",
        r"are no finite numbers",
    ),
    *_rules(
        ErrorClass.DISK_QUOTA,
        r"No space left on device",
        r"[Dd]isk quota exceeded",
        r"[Ff]ile too large",
        r"File size limit exceeded",
        r"database or disk is full",
        r"StorageFull|QuotaExceeded",
        r"PytorchStreamWriter failed writing file",
        r"not enough (?:free )?(?:disk )?space",
    ),
    *_rules(
        ErrorClass.HUB_ACCESS,
        r"gated repo",
        r"Access to (?:model|dataset) \S+ is restricted",
        r"(?:401|403) Client Error",
        r"Repository Not Found for url",
        r"Invalid (?:username or password|credentials in Authorization header|user token)",
        r"[Tt]oken is required|LocalTokenNotFound",
        r"offline mode is enabled|OfflineModeIsEnabled",
        r"couldn't connect to 'https://huggingface\.co'",
        r"cannot find the requested files in the (?:local|disk) cache",
        r"is not a local folder and is not a valid model identifier",
        r"doesn't exist on the Hub or cannot be accessed",
        r"429 Client Error.*huggingface\.co|huggingface\.co.*429",
        r"Revision Not Found for url|Entry Not Found for url",
    ),
    *_rules(
        ErrorClass.NETWORK,
        r"Connection (?:refused|reset by peer|timed out|aborted)",
        r"(?:Temporary failure in name resolution|Name or service not known|Could not resolve host)",
        r"Max retries exceeded with url",
        r"Network is unreachable|No route to host",
        r"Couldn't reach '?\S+'? on the Hub",
        r"SSLError|CERTIFICATE_VERIFY_FAILED",
        r"(?:Read|Connect)Timeout|[Rr]ead timed out",
        r"failed to listen on any local network address|[Aa]ddress already in use",
        r"NCCL error.*(?:system|remote|network)|ncclSystemError|ncclRemoteError",
        r"Remote end closed connection",
        r"50[0-4] Server Error",
    ),
    *_rules(ErrorClass.PERMISSION, r"[Pp]ermission denied", r"Read-only file system", r"Operation not permitted"),
    *_rules(
        ErrorClass.DEVICE_MISMATCH,
        r"Expected all tensors to be on the same device",
        r"is not on the expected device",
        r"Input type \(torch\.\w*\.?\w*Tensor\) and weight type \(torch\.\w*\.?\w*Tensor\) should be the same",
        r"[Ee]xpected object of device type \w+ but got device type",
        r"is on CPU, but expected to be on GPU",
        r"but got \w+ is on \w+, different from other tensors on",
        r"on a CUDA device but torch\.cuda\.is_available\(\) is False",
        r"Torch not compiled with CUDA enabled",
        r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device",
        r"invalid device ordinal|no kernel image is available",
        r"Placeholder storage has not been allocated on MPS device",
    ),
    *_rules(
        ErrorClass.DTYPE_MISMATCH,
        r"(?:must|to) have the same dtype",
        r"expected (?:scalar|target|m1|mat1)?\s?(?:type|dtype)\b.* but (?:found|got)",
        r"[Ii]nput type \(.*\) and (?:bias|weight) type \(.*\) should be the same",
        r"Found dtype \w+ but expected \w+",
        r"not implemented for '\w+'",
        r"can't be cast to the desired output type",
        r"source and destination dtypes match",
        r"unsupported ScalarType",
        r"tensors used as indices must be long",
    ),
    *_rules(
        ErrorClass.SHAPE,
        r"shapes cannot be multiplied",
        r"size of tensor \w+ \(\d+\) must match",
        r"[Ss]izes of tensors must match",
        r"expects each tensor to be equal size",
        r"shape '.*' is invalid for input of size",
        r"size mismatch for \S+: copying a param",
        r"expected sequence of length \d+ at dim \d+",
        r"could not be broadcast together",
        r"inhomogeneous shape",
        r"input batch_size \(\d+\) to match target batch_size",
        r"expanded size of the tensor",
        r"doesn't match the broadcast shape",
        r"[Ee]xpected size for first two dimensions",
        r"shape of the mask .* does not match",
        r"activate truncation and/or padding",
        r"index out of range in self",
        r"[Tt]ype-check error whilst checking the parameters",
    ),
    *_rules(
        ErrorClass.IMPORT,
        r"No module named ",
        r"cannot import name ",
        r"cannot open shared object file|undefined symbol",
        r"requires the .* (?:library|package)",
        r"requires the following packages that were not found",
        r"Failed to import ",
        r"module '[\w.]+' has no attribute",
        r"is not installed here; run `make setup`",
        r"DLL load failed",
        r"\w+: command not found",
    ),
    *_rules(ErrorClass.TIMEOUT, r"timed out after [\d.]+ seconds", r"Watchdog caught collective operation timeout", r"time limit"),
    *_rules(ErrorClass.PREEMPTED, r"stopped (?:at step|after) .*(?:go on with --resume|same command goes on)"),
    *_rules(
        ErrorClass.DATA,
        r"^task '[^']+'(?:[,:]| has no rows)",
        r"Target -?\d+ is out of bounds",
        r"device-side assert triggered",
        r"is cut or corrupt|are cut or corrupt",
        r", line \d+: not (?:UTF-8|JSON|a JSON object)",
        r"No such file or directory",
        r"Not a gzipped file|Compressed file ended before",
        r"Error while deserializing",
        r"no benchmark rows|no data folder|holds no non-empty",
        r"two rows have the id",
        r"holds no run \(no|holds no stored predictions",
    ),
    *_rules(
        ErrorClass.CONFIG,
        r"unknown (?:key|task|method|bridge|model|split|config)",
        r"No such (?:option|command)|unrecognized arguments|the following arguments are required|invalid choice",
        r"is not YAML|does not fit(?:[:;,]|$)",
        r"holds a run of another config",
        r"config '.*' does not exist",
        r"validation errors? for \w+",
        r"Invalid (?:account|partition|qos|generic resource)|violates accounting/QOS policy|Batch job submission failed",
    ),
)

#: exception names (the last part of the dotted name) whose class is certain whatever they say
BY_NAME: dict[str, ErrorClass] = {
    "OutOfMemoryError": ErrorClass.OOM,
    "MemoryError": ErrorClass.OOM,
    "_ArrayMemoryError": ErrorClass.OOM,
    "NonFiniteLossError": ErrorClass.NAN,
    "FloatingPointError": ErrorClass.NAN,
    "ModuleNotFoundError": ErrorClass.IMPORT,
    "ImportError": ErrorClass.IMPORT,
    "PackageNotFoundError": ErrorClass.IMPORT,
    "TimeoutExpired": ErrorClass.TIMEOUT,
    "StoppedEarlyError": ErrorClass.PREEMPTED,
    "KeyboardInterrupt": ErrorClass.PREEMPTED,
    "PermissionError": ErrorClass.PERMISSION,
    "GatedRepoError": ErrorClass.HUB_ACCESS,
    "RepositoryNotFoundError": ErrorClass.HUB_ACCESS,
    "RevisionNotFoundError": ErrorClass.HUB_ACCESS,
    "EntryNotFoundError": ErrorClass.HUB_ACCESS,
    "RemoteEntryNotFoundError": ErrorClass.HUB_ACCESS,
    "LocalEntryNotFoundError": ErrorClass.HUB_ACCESS,
    "OfflineModeIsEnabled": ErrorClass.HUB_ACCESS,
    "LocalTokenNotFoundError": ErrorClass.HUB_ACCESS,
    "DatasetNotFoundError": ErrorClass.HUB_ACCESS,
}

#: exception names whose class holds when their text says nothing more exact
BY_NAME_ELSE: dict[str, ErrorClass] = {
    "DataError": ErrorClass.DATA,
    "ArtefactError": ErrorClass.DATA,
    "UsageError": ErrorClass.CONFIG,
    "ConfigError": ErrorClass.CONFIG,
    "UnknownNameError": ErrorClass.CONFIG,
    "MismatchError": ErrorClass.CONFIG,
    "ValidationError": ErrorClass.CONFIG,
    "ParserError": ErrorClass.CONFIG,
    "ScannerError": ErrorClass.CONFIG,
    "FileNotFoundError": ErrorClass.DATA,
    "NotADirectoryError": ErrorClass.DATA,
    "IsADirectoryError": ErrorClass.DATA,
    "JSONDecodeError": ErrorClass.DATA,
    "UnicodeDecodeError": ErrorClass.DATA,
    "BadGzipFile": ErrorClass.DATA,
    "EOFError": ErrorClass.DATA,
    "SafetensorError": ErrorClass.DATA,
    "DatasetGenerationError": ErrorClass.DATA,
    "DataFilesNotFoundError": ErrorClass.DATA,
    "EinopsError": ErrorClass.SHAPE,
    "TypeCheckError": ErrorClass.SHAPE,
    "ConnectionError": ErrorClass.NETWORK,
    "ConnectionRefusedError": ErrorClass.NETWORK,
    "ConnectionResetError": ErrorClass.NETWORK,
    "ConnectionAbortedError": ErrorClass.NETWORK,
    "BrokenPipeError": ErrorClass.NETWORK,
    "ConnectError": ErrorClass.NETWORK,
    "ConnectTimeout": ErrorClass.NETWORK,
    "ReadTimeout": ErrorClass.NETWORK,
    "ReadError": ErrorClass.NETWORK,
    "RemoteProtocolError": ErrorClass.NETWORK,
    "ChunkedEncodingError": ErrorClass.NETWORK,
    "IncompleteRead": ErrorClass.NETWORK,
    "gaierror": ErrorClass.NETWORK,
    "SSLError": ErrorClass.NETWORK,
    "URLError": ErrorClass.NETWORK,
    "TimeoutError": ErrorClass.TIMEOUT,
    "Timeout": ErrorClass.TIMEOUT,
    "HfHubHTTPError": ErrorClass.HUB_ACCESS,
}

BY_ERRNO: dict[int, ErrorClass] = {
    errno.ENOSPC: ErrorClass.DISK_QUOTA,
    errno.EDQUOT: ErrorClass.DISK_QUOTA,
    errno.EFBIG: ErrorClass.DISK_QUOTA,
    errno.EACCES: ErrorClass.PERMISSION,
    errno.EPERM: ErrorClass.PERMISSION,
    errno.EROFS: ErrorClass.PERMISSION,
    errno.ENOMEM: ErrorClass.OOM,
    errno.ENOENT: ErrorClass.DATA,
    errno.ENOTDIR: ErrorClass.DATA,
    errno.ECONNREFUSED: ErrorClass.NETWORK,
    errno.ECONNRESET: ErrorClass.NETWORK,
    errno.ETIMEDOUT: ErrorClass.NETWORK,
    errno.ENETUNREACH: ErrorClass.NETWORK,
    errno.EHOSTUNREACH: ErrorClass.NETWORK,
    errno.EADDRINUSE: ErrorClass.NETWORK,
}

#: signal numbers as on Linux: logs of a cluster are read on any laptop, where the numbers of ``signal`` may differ
BY_SIGNAL: dict[int, tuple[ErrorClass, str]] = {
    1: (ErrorClass.PREEMPTED, "stopped by SIGHUP: the terminal or connection that started it was closed"),
    2: (ErrorClass.PREEMPTED, "interrupted (SIGINT)"),
    6: (ErrorClass.UNKNOWN, "aborted (SIGABRT): a library gave up; what it said stands in the log"),
    7: (ErrorClass.OOM, "ended by SIGBUS: shared memory or a mapped file could not be provided"),
    9: (
        ErrorClass.UNKNOWN,
        "killed by SIGKILL without a message: the kernel's memory killer, or the scheduler after its grace time",
    ),
    10: (ErrorClass.PREEMPTED, "stopped by SIGUSR1, a warning before the time limit or a pre-emption"),
    11: (ErrorClass.UNKNOWN, "crashed (SIGSEGV): a fault in native code"),
    12: (ErrorClass.PREEMPTED, "stopped by SIGUSR2, the warning before the time limit or a pre-emption"),
    14: (ErrorClass.TIMEOUT, "ended by SIGALRM: a time limit of the process itself"),
    15: (ErrorClass.PREEMPTED, "stopped by SIGTERM: pre-empted or cancelled"),
    24: (ErrorClass.TIMEOUT, "ended by SIGXCPU: the limit on CPU time"),
    25: (ErrorClass.DISK_QUOTA, "ended by SIGXFSZ: the limit on file size"),
}

#: signals that a process gets for a fault of its own, so that what it said before explains it
OWN_FAULT_SIGNALS = frozenset({4, 6, 7, 8, 11})

BY_EXIT_CODE: dict[int, tuple[ErrorClass, str]] = {
    2: (ErrorClass.CONFIG, "exit code 2: the command line or the config was refused"),
    124: (ErrorClass.TIMEOUT, "exit code 124: `timeout` ended the command"),
    126: (ErrorClass.PERMISSION, "exit code 126: the command may not be executed"),
    127: (ErrorClass.IMPORT, "exit code 127: the command was not found; the environment is missing or not activated"),
}
