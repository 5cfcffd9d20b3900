# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libbpf through ctypes: opening, loading and attaching the object, and reading BTF.

Works with libbpf.so.1 and libbpf.so.0 from version 0.5 on, whichever the host has (iproute2
brings it). Only functions whose signature is the same in all of these are used.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from types import TracebackType

from ..errors import BtfNotFound, LoaderError, TrackerError, VerifierError
from .libc import format_va_list

NAMES = ("libbpf.so.1", "libbpf.so.0")
NEEDED = "0.5"

_PTR = ctypes.c_void_p
_STR = ctypes.c_char_p
_INT = ctypes.c_int
_U32 = ctypes.c_uint32
_SIZE = ctypes.c_size_t

# name: (result, arguments...)
_FUNCTIONS = {
    "libbpf_set_print": (_PTR, _PTR),
    "bpf_object__open_mem": (_PTR, _PTR, _SIZE, _PTR),
    "bpf_object__load": (_INT, _PTR),
    "bpf_object__close": (None, _PTR),
    "bpf_object__find_map_by_name": (_PTR, _PTR, _STR),
    "bpf_object__find_program_by_name": (_PTR, _PTR, _STR),
    "bpf_map__fd": (_INT, _PTR),
    "bpf_map__reuse_fd": (_INT, _PTR, _INT),
    "bpf_map__set_max_entries": (_INT, _PTR, _U32),
    "bpf_map__set_initial_value": (_INT, _PTR, _PTR, _SIZE),
    "bpf_program__set_autoload": (_INT, _PTR, ctypes.c_bool),
    "bpf_program__fd": (_INT, _PTR),
    "bpf_program__attach": (_PTR, _PTR),
    "bpf_program__attach_kprobe_opts": (_PTR, _PTR, _STR, _PTR),
    "bpf_link__fd": (_INT, _PTR),
    "bpf_link__disconnect": (None, _PTR),
    "bpf_link__destroy": (_INT, _PTR),
    "btf__load_vmlinux_btf": (_PTR,),
    "btf__load_module_btf": (_PTR, _STR, _PTR),
    "btf__parse": (_PTR, _STR, _PTR),
    "btf__find_by_name_kind": (ctypes.c_int32, _PTR, _STR, _U32),
    "btf__type_by_id": (_PTR, _PTR, _U32),
    "btf__name_by_offset": (_STR, _PTR, _U32),
    "btf__free": (None, _PTR),
}

_PRINT = ctypes.CFUNCTYPE(_INT, _INT, _STR, _PTR)
_LEVEL_DEBUG = 2

# The library has one print function a process and calls it for ever: neither may ever be freed
_messages: list[str] = []


def _keep(level: int, fmt: bytes, va_list: int | None) -> int:
    if level < _LEVEL_DEBUG:
        text = format_va_list(fmt, va_list).decode("utf-8", "replace")
        _messages.append(text.rstrip("\n"))
    return 0


_CALLBACK = _PRINT(_keep)

# enum btf_kind
KIND_STRUCT = 4
KIND_FUNC = 12

_INSTALL = "install the package libbpf1 (Debian: libbpf1 or libbpf0, Red Hat: libbpf)"


class Libbpf:
    """The library, found and bound once. `path` and `version` say which one it is.

    Raises LoaderError where there is none, or one older than 0.5.
    """

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        self._dll = _open(names)
        self.path = _loaded_path()
        for name, (result, *arguments) in _FUNCTIONS.items():
            try:
                function = getattr(self._dll, name)
            except AttributeError:
                raise LoaderError(
                    f"libbpf at {self.path} is too old (it has no {name}), "
                    f"libbpf {NEEDED} or newer is needed: {_INSTALL}"
                ) from None
            function.restype = result
            function.argtypes = arguments
        self.version = self._version()
        # In 0.x: null pointers and errno instead of error numbers in pointers
        if hasattr(self._dll, "libbpf_set_strict_mode"):
            self._dll.libbpf_set_strict_mode(_INT(-1))
        self._dll.libbpf_set_print(ctypes.cast(_CALLBACK, _PTR))

    def _version(self) -> str:
        if hasattr(self._dll, "libbpf_major_version"):
            return f"{self._dll.libbpf_major_version()}.{self._dll.libbpf_minor_version()}"
        return NEEDED

    def take_messages(self) -> list[str]:
        """What libbpf has printed (warnings and information) since the last call."""
        taken, _messages[:] = list(_messages), []
        return taken

    def call(self, name: str, *args: object) -> int:
        """Calls a function; raises OSError for a negative number or a null pointer."""
        ctypes.set_errno(0)
        result = getattr(self._dll, name)(*args)
        if _FUNCTIONS[name][0] is _PTR and not result:
            errno = ctypes.get_errno() or 22
            raise OSError(errno, os.strerror(errno))
        if result is not None and isinstance(result, int) and result < 0:
            raise OSError(-result, os.strerror(-result))
        return result or 0

    def text(self, name: str, *args: object) -> str:
        """Calls a function that gives a string."""
        result: bytes | None = getattr(self._dll, name)(*args)
        return (result or b"").decode("ascii", "replace")


def _open(names: tuple[str, ...]) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
    raise LoaderError(
        f"libbpf is missing (looked for {' and '.join(names)}), "
        f"libbpf {NEEDED} or newer is needed: {_INSTALL}"
    )


def _loaded_path() -> str:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            path = line.rstrip("\n").rpartition(" ")[2]
            if os.path.basename(path).startswith("libbpf.so"):
                return path
    return "unknown path"


# --- BTF --------------------------------------------------------------------------------------

_KERNEL = "/sys/kernel/btf/vmlinux"


def _without_kernel(lib: Libbpf, why: str) -> str:
    if os.path.exists(_KERNEL) and os.path.getsize(_KERNEL):
        return (
            f"libbpf {lib.version} does not read the kernel's BTF ({why}), most likely it is older "
            "than the kernel's types: install libbpf 1.0 or newer"
        )
    return (
        f"the kernel gives no BTF ({_KERNEL}: {why}): name a BTF file of this kernel with "
        "btf_path, or run a kernel with CONFIG_DEBUG_INFO_BTF=y"
    )


class Btf:
    """The types of the running kernel and of one of its modules, or of a file."""

    def __init__(self, lib: Libbpf, handles: list[int]) -> None:
        self._lib = lib
        self._handles = handles

    @classmethod
    def of_kernel(cls, lib: Libbpf, module: str | None = None) -> Btf:
        """Reads /sys/kernel/btf/vmlinux, and the module's BTF where it has one of its own.

        Raises BtfNotFound if the kernel gives no BTF.
        """
        try:
            base = lib.call("btf__load_vmlinux_btf")
        except OSError as exc:
            lib.take_messages()
            raise BtfNotFound(_without_kernel(lib, str(exc.strerror))) from None
        handles = [base]
        if module and os.path.exists(f"/sys/kernel/btf/{module}"):
            try:
                handles.insert(0, lib.call("btf__load_module_btf", module.encode(), base))
            except OSError:
                lib.take_messages()
        return cls(lib, handles)

    @classmethod
    def of_file(cls, lib: Libbpf, path: str, name: str | None = None) -> Btf:
        """Reads a BTF file (raw, or an ELF file with a .BTF section); raises BtfNotFound.

        `name` is for messages.
        """
        name = name or f"btf_path {path}"
        if not os.path.isfile(path):
            raise BtfNotFound(f"{name} does not exist: give a BTF file of this kernel")
        try:
            return cls(lib, [lib.call("btf__parse", os.fsencode(path), None)])
        except OSError as exc:
            lib.take_messages()
            raise BtfNotFound(
                f"{name} is not BTF ({exc.strerror}): give a BTF file of this kernel"
            ) from None

    def members(self, struct_name: str) -> dict[str, int] | None:
        """The members of a struct and their offsets in bits, None if there is no such struct."""
        for handle in self._handles:
            type_id = self._find(handle, struct_name, KIND_STRUCT)
            if type_id is not None:
                return self._members(handle, type_id)
        return None

    def function(self, name: str) -> int | None:
        """The type id of a function, None if BTF does not describe it."""
        for handle in self._handles:
            type_id = self._find(handle, name, KIND_FUNC)
            if type_id is not None:
                return type_id
        return None

    def _find(self, handle: int, name: str, kind: int) -> int | None:
        try:
            return self._lib.call("btf__find_by_name_kind", handle, name.encode(), kind)
        except OSError:
            return None

    def _members(self, handle: int, type_id: int) -> dict[str, int]:
        # struct btf_type {name_off, info, size} and then struct btf_member {name_off, type, offset}
        address = self._lib.call("btf__type_by_id", handle, type_id)
        info = struct.unpack("=I", ctypes.string_at(address + 4, 4))[0]
        raw = ctypes.string_at(address + 12, 12 * (info & 0xFFFF))
        # With bit fields in the struct, an offset has a field's size in its upper byte
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        return {
            self._lib.text("btf__name_by_offset", handle, name_off): offset & mask
            for name_off, _type, offset in struct.iter_unpack("=III", raw)
        }

    def close(self) -> None:
        """Frees the types."""
        for handle in self._handles:
            self._lib.call("btf__free", handle)
        self._handles = []

    def __enter__(self) -> Btf:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# --- the object -------------------------------------------------------------------------------

_OPEN_OPTS = struct.Struct("=QQ8xQQQQ")  # sz, object_name, bools, pin_root_path, -, kconfig, btf
_KPROBE_OPTS = struct.Struct("=QQQQ")  # sz, bpf_cookie, offset, retprobe
_OBJECT_NAME = b"conntrack"


class BpfObject:
    """An opened object. Until `keep()`, closing it detaches and unloads all of it again."""

    def __init__(self, lib: Libbpf, content: bytes, btf_path: str | None) -> None:
        self._lib = lib
        self._content = ctypes.create_string_buffer(content, len(content))
        self._name = ctypes.create_string_buffer(_OBJECT_NAME)
        self._btf_path = ctypes.create_string_buffer(os.fsencode(btf_path)) if btf_path else None
        opts = ctypes.create_string_buffer(
            _OPEN_OPTS.pack(
                _OPEN_OPTS.size,
                ctypes.addressof(self._name),
                0,
                0,
                0,
                ctypes.addressof(self._btf_path) if self._btf_path else 0,
            ),
            _OPEN_OPTS.size,
        )
        self._maps: dict[str, int] = {}
        self._links: dict[str, int] = {}
        # A kprobe's perf event, where the link is another descriptor (since Linux 5.15)
        self._events: dict[str, set[int]] = {}
        lib.take_messages()
        try:
            self._handle = lib.call(
                "bpf_object__open_mem",
                ctypes.addressof(self._content),
                len(content),
                ctypes.addressof(opts),
            )
        except OSError as exc:
            raise LoaderError(
                f"libbpf {lib.version} cannot open the object: {self._why(exc)}"
            ) from None

    def _map(self, name: str) -> int:
        # Looked for once: before 1.0, a map that is given an open one goes by the kernel's name of
        # it from then on, which has no room for more than 15 characters
        if name not in self._maps:
            self._maps[name] = self._find_map(name)
        return self._maps[name]

    def _find_map(self, name: str) -> int:
        try:
            return self._lib.call("bpf_object__find_map_by_name", self._handle, name.encode())
        except OSError:
            pass
        # Before 0.8 a section's map goes by its name in the kernel
        internal = (_OBJECT_NAME[:8] + name.encode())[:15]
        try:
            return self._lib.call("bpf_object__find_map_by_name", self._handle, internal)
        except OSError:
            raise LoaderError(
                f"the object has no map {name}: use an object and a collection of the same release"
            ) from None

    def _program(self, name: str) -> int:
        try:
            return self._lib.call("bpf_object__find_program_by_name", self._handle, name.encode())
        except OSError:
            raise LoaderError(
                f"the object has no program {name}: "
                "use an object and a collection of the same release"
            ) from None

    def select(self, programs: list[str], all_programs: list[str]) -> None:
        """Loads these programs only."""
        for name in all_programs:
            self._lib.call("bpf_program__set_autoload", self._program(name), name in programs)

    def set_max_entries(self, map_name: str, entries: int) -> None:
        """Gives a map its size."""
        self._lib.call("bpf_map__set_max_entries", self._map(map_name), entries)

    def reuse_map(self, map_name: str, fd: int) -> None:
        """Takes an existing map in place of a new one."""
        self._lib.call("bpf_map__reuse_fd", self._map(map_name), fd)

    def set_rodata(self, content: bytes) -> None:
        """Gives the constants their values."""
        self._lib.call("bpf_map__set_initial_value", self._map(".rodata"), content, len(content))

    def load(self) -> None:
        """Relocates against the kernel's BTF and loads; raises VerifierError or LoaderError."""
        self._lib.take_messages()
        try:
            self._lib.call("bpf_object__load", self._handle)
        except OSError as exc:
            messages = self._lib.take_messages()
            log = verifier_log(messages)
            if log:
                raise VerifierError(
                    "the kernel's verifier refused "
                    f"{refused_program(messages) or 'the object'}: {log}"
                ) from None
            raise LoaderError(
                f"libbpf {self._lib.version} cannot load the object: "
                f"{_last_warning(messages) or exc.strerror}"
            ) from None

    def map_fd(self, map_name: str) -> int:
        """The descriptor of a loaded map; libbpf keeps it."""
        return self._lib.call("bpf_map__fd", self._map(map_name))

    def program_fd(self, name: str) -> int:
        """The descriptor of a loaded program; libbpf keeps it."""
        return self._lib.call("bpf_program__fd", self._program(name))

    def attach(self, program: str, symbol: str | None = None, at_return: bool = False) -> int:
        """Attaches as the section says, a kprobe to `symbol` if given; the link's descriptor."""
        self._lib.take_messages()
        handle = self._program(program)
        before = _perf_events()
        try:
            if symbol is None:
                link = self._lib.call("bpf_program__attach", handle)
            else:
                opts = ctypes.create_string_buffer(
                    _KPROBE_OPTS.pack(_KPROBE_OPTS.size, 0, 0, at_return), _KPROBE_OPTS.size
                )
                link = self._lib.call(
                    "bpf_program__attach_kprobe_opts",
                    handle,
                    symbol.encode(),
                    ctypes.addressof(opts),
                )
        except OSError as exc:
            raise LoaderError(f"cannot attach {program}: {self._why(exc)}") from None
        fd: int = self._lib.call("bpf_link__fd", link)
        self._links[program] = link
        self._events[program] = _perf_events() - before - {fd}
        return fd

    def detach(self, program: str) -> None:
        """Takes an attached program off again."""
        del self._events[program]  # libbpf closes these
        self._lib.call("bpf_link__destroy", self._links.pop(program))

    def keep(self) -> None:
        """From here on closing does not detach: pins, or another process, hold the links.

        What has failed in the middle can be called again.
        """
        while self._links:
            program, link = self._links.popitem()
            fd = self._lib.call("bpf_link__fd", link)
            self._lib.call("bpf_link__disconnect", link)
            # libbpf leaves them open, which in a process that stays would be for ever
            for left in (fd, *self._events.pop(program)):
                os.close(left)

    def close(self) -> None:
        """Detaches what was not kept, and frees everything."""
        for link in self._links.values():
            self._lib.call("bpf_link__destroy", link)
        self._links = {}
        if self._handle:
            self._lib.call("bpf_object__close", self._handle)
            self._handle = 0

    def _why(self, exc: OSError) -> str:
        return _last_warning(self._lib.take_messages()) or str(exc.strerror)

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _perf_events() -> set[int]:
    """This process's descriptors of perf events. libbpf has no call for that of a link."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[perf_event]":
                found.add(int(name))
        except FileNotFoundError:  # that of the listing itself, or another thread's
            continue
    return found


# --- what libbpf says -------------------------------------------------------------------------

_BEGIN = re.compile(r"-- BEGIN (?:PROG LOAD|DUMP) LOG --")
_END = re.compile(r"-- END (?:PROG LOAD )?LOG --")
_STATISTICS = re.compile(r"^(processed \d+ insns|verification time |stack depth )")


def verifier_log(messages: list[str], lines: int = 3) -> str:
    """The last lines of the verifier's log among libbpf's messages, joined by " | "; or ""."""
    text = "\n".join(messages)
    begin = None
    for begin in _BEGIN.finditer(text):  # noqa: B007  (the last one is wanted)
        pass
    if begin is None:
        return ""
    end = _END.search(text, begin.end())
    body = text[begin.end() : end.start() if end else len(text)]
    kept = []
    for line in body.splitlines():
        line = re.sub(r"^libbpf: ", "", line).strip()
        if line and not _STATISTICS.match(line):
            kept.append(line)
    return " | ".join(kept[-lines:])


def refused_program(messages: list[str]) -> str | None:
    """Which program the verifier's log is about."""
    for message in messages:
        match = re.search(r"prog '([^']+)': (?:BPF program load failed|-- BEGIN)", message)
        if match:
            return f"program {match.group(1)}"
    return None


def _last_warning(messages: list[str]) -> str:
    """libbpf's first warning says the cause; those after it say what that made fail."""
    for message in messages:
        line = re.sub(r"^libbpf: ", "", message.splitlines()[0] if message else "").strip()
        if line and not line.startswith(("elf: skipping", "loading", "sec '")):
            return line
    return ""


__all__ = ["BpfObject", "Btf", "Libbpf", "TrackerError", "refused_program", "verifier_log"]
