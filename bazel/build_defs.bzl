"""What our BUILD files load: the test macros."""

load(":retarget.bzl", "compile_test", "retargeted_binary", "retargeted_test")

# target_compatible_with of what makes no sense where a sanitizer's run time is
# the malloc, such as a test that preloads libhakmem.so: skipped in those configs.
NOT_SANITIZED = select({
    "//config:sanitized": ["@platforms//:incompatible"],
    "//conditions:default": [],
})

# Marks what names its own build, for --build_tag_filters=-retargeted.
_TAGS = ["retargeted"]

def stage_binary(name, binary, stage, tags = [], **kwargs):
    """The cc_binary `binary`, built for one stage whatever the command line says.

    Args:
      name: of the target.
      binary: label of the cc_binary.
      stage: unlocked, p0, tls_tiny, tls_l2 or tls_full.
      tags: as everywhere.
      **kwargs: data, visibility and what else every rule takes.
    """
    retargeted_binary(
        name = name,
        program = binary,
        stage = stage,
        tags = tags + _TAGS,
        **kwargs
    )

def stage_test(name, test, stage, tags = [], **kwargs):
    """The cc_test `test`, built and run for one stage.

    Args:
      name: of the test, x_test.
      test: label of the cc_test or cc_binary.
      stage: unlocked, p0, tls_tiny, tls_l2 or tls_full.
      tags: as everywhere.
      **kwargs: args, data, env, size and what else every test takes.
    """
    retargeted_test(
        name = name,
        program = test,
        stage = stage,
        tags = tags + _TAGS,
        **kwargs
    )

def helgrind_test(name, binary, stage = "", tags = [], **kwargs):
    """Runs `binary` under Helgrind; any report fails the test.

    Args:
      name: of the test, x_helgrind_test.
      binary: label of the cc_binary or cc_test.
      stage: stage to build it for; the command line's if empty.
      tags: as everywhere.
      **kwargs: args, data, env, size and what else every test takes.
    """
    retargeted_test(
        name = name,
        program = binary,
        runner = "//bazel:helgrind",
        stage = stage,
        tags = tags + _TAGS,
        **kwargs
    )

def helgrind_finds_test(name, binary, stage = "", tags = [], **kwargs):
    """Passes when Helgrind reports `binary`: a check of the check.

    Args:
      name: of the test, x_helgrind_finds_test.
      binary: label of a cc_binary that lacks a lock.
      stage: stage to build it for; the command line's if empty.
      tags: as everywhere.
      **kwargs: size and what else every test takes. The first of `args` is the
        beginning of the function's name that has to be reported.
    """
    retargeted_test(
        name = name,
        program = binary,
        runner = "//bazel:helgrind_finds",
        stage = stage,
        tags = tags + _TAGS,
        **kwargs
    )

# The stacks' line numbers come from binutils, which g++ brings, and not from an
# LLVM package more. --config=asan, ubsan and tsan in .bazelrc say the same.
_SYMBOLIZER = "external_symbolizer_path=/usr/bin/addr2line"
_SANITIZER_ENV = {
    "asan": {"ASAN_OPTIONS": _SYMBOLIZER},
    "ubsan": {"UBSAN_OPTIONS": _SYMBOLIZER + ":print_stacktrace=1"},
    "tsan": {"TSAN_OPTIONS": _SYMBOLIZER + ":second_deadlock_stack=1:history_size=7"},
}

def _sanitizer_test(name, test, sanitizer, env = {}, tags = [], **kwargs):
    retargeted_test(
        name = name,
        compiler = sanitizer,
        env = dict(_SANITIZER_ENV[sanitizer], **env),
        program = test,
        tags = tags + _TAGS,
        **kwargs
    )

def tsan_test(name, test, **kwargs):
    """Runs `test` built by clang with ThreadSanitizer, Abseil and GoogleTest included.

    Args:
      name: of the test, x_tsan_test.
      test: label of the cc_test or cc_binary.
      **kwargs: args, data, env, size, stage and what else every test takes.
    """
    _sanitizer_test(name, test, "tsan", **kwargs)

def asan_test(name, test, **kwargs):
    """Runs `test` built by clang with AddressSanitizer. Arguments as in tsan_test."""
    _sanitizer_test(name, test, "asan", **kwargs)

def ubsan_test(name, test, **kwargs):
    """Runs `test` built by clang with UBSan, without recovery. Arguments as in tsan_test."""
    _sanitizer_test(name, test, "ubsan", **kwargs)

def sanitizer_binary(name, binary, sanitizer, tags = [], **kwargs):
    """The cc_binary `binary`, built by clang with a sanitizer, for a test to run.

    Args:
      name: of the target.
      binary: label of the cc_binary.
      sanitizer: asan, ubsan or tsan.
      tags: as everywhere.
      **kwargs: data, visibility and what else every rule takes.
    """
    retargeted_binary(
        name = name,
        compiler = sanitizer,
        program = binary,
        tags = tags + _TAGS,
        **kwargs
    )

def fuzz_test(name, binary, corpus, max_len, runs, tags = [], **kwargs):
    """Runs the libFuzzer target `binary`: the corpus, and then inputs that are new.

    Args:
      name: of the test, x_fuzz_test.
      binary: label of a cc_binary, manual, with LLVMFuzzerTestOneInput.
      corpus: files, all in the package's folder corpus.
      max_len: how long an input may be, in bytes.
      runs: how many inputs to try. Which those are is the same every time, as
        far as the order in which threads run lets it.
      tags: as everywhere.
      **kwargs: size, stage and what else every test takes.
    """
    retargeted_test(
        name = name,
        args = [
            "-seed=1",
            "-runs=%d" % runs,
            "-max_len=%d" % max_len,
            "-timeout=100",
            "-print_final_stats=1",
            native.package_name() + "/corpus",
        ],
        compiler = "fuzzer",
        data = corpus,
        program = binary,
        runner = "//bazel:fuzz",
        tags = tags + _TAGS,
        **kwargs
    )

def clang_test(name, targets, tags = [], **kwargs):
    """Passes when clang compiles `targets` without a warning, -Wthread-safety included.

    Args:
      name: of the test, x_clang_test.
      targets: labels of cc_libraries, cc_binaries and cc_tests.
      tags: as everywhere.
      **kwargs: size, stage and what else every test takes.
    """
    compile_test(
        name = name,
        compiler = "clang",
        tags = tags + _TAGS,
        targets = targets,
        **kwargs
    )
