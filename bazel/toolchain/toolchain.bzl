"""The C++ toolchains: gcc, clang, and clang with each sanitizer or libFuzzer."""

load("@bazel_tools//tools/cpp:unix_cc_toolchain_config.bzl", "cc_toolchain_config")

_GCC = "/usr/bin/gcc-12"
_CLANG = "/usr/lib/llvm-19/bin/clang"

# clang also checks the locking annotations, in every build that it does. The
# sanitizers keep frame pointers for their stacks. -fsanitize-link-c++-runtime
# is what clang++ would add for operator new; Bazel links with the C driver.
_SANITIZER_FLAGS = {
    "asan": ["-fsanitize=address"],
    # vptr needs RTTI, which the allocator is built without.
    "ubsan": ["-fsanitize=undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all"],
    "tsan": ["-fsanitize=thread"],
}

_HEADERS = [
    "/usr/include",
    "/usr/lib/gcc/x86_64-linux-gnu/12/include",
    # clang names its own headers by either of two paths.
    "/usr/lib/clang/19",
    "/usr/lib/llvm-19/lib/clang/19",
    "/usr/local/include",
]

def _toolchain(name, driver, compile_flags, link_flags, gold = True):
    native.filegroup(name = name + "_files")
    cc_toolchain_config(
        name = name + "_config",
        abi_libc_version = "local",
        abi_version = "local",
        compile_flags = compile_flags,
        compiler = name,
        cpu = "k8",
        cxx_builtin_include_directories = _HEADERS,
        cxx_flags = ["-std=c++20"],
        dbg_compile_flags = ["-g", "-O0"],
        host_system_name = "local",
        # A library is recorded as needed only where something in it is used.
        link_flags = ["-Wl,--as-needed", "-Wl,-z,relro,-z,now"] +
                     (["-fuse-ld=gold"] if gold else []) + link_flags,
        link_libs = ["-lstdc++", "-lm"],
        # Assertions off, in our code and in the dependencies: what is tested is
        # what is measured and deployed. -g1 gives stacks their line numbers.
        opt_compile_flags = ["-O2", "-g1", "-DNDEBUG", "-ffunction-sections", "-fdata-sections"],
        opt_link_flags = ["-Wl,--gc-sections"],
        supports_start_end_lib = gold,
        target_libc = "local",
        target_system_name = "local",
        tool_paths = {
            "ar": "/usr/bin/ar",
            "cpp": "/usr/bin/cpp",
            "dwp": "/usr/bin/dwp",
            "gcc": driver,
            "gcov": "/usr/bin/gcov",
            "ld": "/usr/bin/ld",
            "llvm-cov": "/usr/bin/llvm-cov",
            "nm": "/usr/bin/nm",
            "objcopy": "/usr/bin/objcopy",
            "objdump": "/usr/bin/objdump",
            "strip": "/usr/bin/strip",
        },
        toolchain_identifier = name,
        # The same sources give the same objects, whenever they are compiled.
        unfiltered_compile_flags = [
            "-no-canonical-prefixes",
            "-Wno-builtin-macro-redefined",
            "-D__DATE__=\"redacted\"",
            "-D__TIMESTAMP__=\"redacted\"",
            "-D__TIME__=\"redacted\"",
        ] + (["-fno-canonical-system-headers"] if driver == _GCC else []),
    )
    native.cc_toolchain(
        name = name,
        all_files = name + "_files",
        compiler_files = name + "_files",
        dwp_files = name + "_files",
        linker_files = name + "_files",
        objcopy_files = name + "_files",
        strip_files = name + "_files",
        supports_param_files = 1,
        toolchain_config = name + "_config",
        toolchain_identifier = name,
    )

def toolchains(name, default):
    """Declares the toolchains gcc, clang, asan, ubsan, tsan, fuzzer and their suite.

    Args:
      name: of the cc_toolchain_suite, for --crosstool_top.
      default: the one that is used where --compiler is not given.
    """

    # Abseil's headers use built-ins that clang 19 calls deprecated.
    clang_flags = ["-Wthread-safety", "-Wno-deprecated-builtins"]

    # A unique symbol cannot be hidden in an object (see self_contained.bzl) and
    # buys nothing in programs that are linked statically.
    _toolchain("gcc", _GCC, ["-fno-gnu-unique"], [])
    _toolchain("clang", _CLANG, clang_flags, [])
    for sanitizer, flags in _SANITIZER_FLAGS.items():
        _toolchain(
            sanitizer,
            _CLANG,
            clang_flags + flags + ["-fno-omit-frame-pointer"],
            flags + ["-fsanitize-link-c++-runtime"],
            # gold warns of a symbol in asan's run time.
            gold = sanitizer != "asan",
        )

    # Every program that it links has libFuzzer's main().
    _toolchain(
        "fuzzer",
        _CLANG,
        clang_flags + ["-fsanitize=fuzzer-no-link"],
        ["-fsanitize=fuzzer"],
    )

    names = ["gcc", "clang", "fuzzer"] + _SANITIZER_FLAGS.keys()
    suite = {"k8|" + compiler: ":" + compiler for compiler in names}
    suite["k8"] = ":" + default
    native.cc_toolchain_suite(
        name = name,
        toolchains = suite,
        visibility = ["//visibility:public"],
    )
