"""What every crate of the allocator is built with."""

load(
    "//bazel:build_defs.bzl",
    "asan_test",
    "helgrind_finds_test",
    "helgrind_test",
    "tsan_test",
    "ubsan_test",
)

# For the code that becomes malloc. No C++ run time: no exceptions, no RTTI, no
# guards around static objects. Unwind tables stay: what a new_handler throws
# passes through. Hidden symbols are reached without a table.
ALLOCATOR_COPTS = [
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-stack-protector",
    "-fno-plt",
    "-ftls-model=initial-exec",
    "-fvisibility=hidden",
    "-fno-builtin-malloc",
]

# The tests of the pool suites that run threads.
_THREADS = "--gtest_filter=PoolThreadsTest.*"

def pool_crate(name):
    """The libraries, tests and benchmark of one pool: its variants over //hakmem/core.

    Declares, for the crate tiny, the libraries :tiny_locked, :tiny_cached and
    :tiny_unlocked; for each of the first two the suites of core as
    :tiny_locked_test and :tiny_locked_exhaustion_test, and the former also
    under each sanitizer and Helgrind; :tiny_unlocked_helgrind_finds_test, which
    shows that Helgrind sees a lock that is missing; and :tiny_benchmark.

    Args:
      name: of the crate: tiny, l2 or l25.
    """
    header = name + ".h"
    header_define = "HAKMEM_POOL_HEADER=\\\"%s/%s\\\"" % (native.package_name(), header)
    for variant, deps in [
        ("locked", []),
        ("unlocked", []),
        ("cached", [":%s_locked" % name]),
    ]:
        library = "%s_%s" % (name, variant)
        native.cc_library(
            name = library,
            srcs = [library + ".cc"],
            hdrs = [header],
            copts = ALLOCATOR_COPTS,
            visibility = [
                "//hakmem:__pkg__",
                "//hakmem/shim:__subpackages__",
            ],
            deps = ["//hakmem/core"] + deps,
        )
        native.cc_library(
            name = library + "_under_test",
            testonly = True,
            # The suite, not the program, refers to it.
            alwayslink = True,
            srcs = ["//hakmem/core:pool_under_test.cc"],
            local_defines = [
                header_define,
                "HAKMEM_POOL=hakmem::%s::%s_pool" % (name, variant),
            ],
            visibility = ["//hakmem:__pkg__"],
            deps = [
                ":" + library,
                "//hakmem/core:pool_test",
            ],
        )

    for variant in ["locked", "cached"]:
        test = "%s_%s_test" % (name, variant)
        base = "%s_%s" % (name, variant)
        native.cc_test(
            name = test,
            size = "small",
            deps = [
                ":%s_under_test" % base,
                "//hakmem/core:pool_suite",
                "@com_google_googletest//:gtest_main",
            ],
        )
        native.cc_test(
            name = base + "_exhaustion_test",
            size = "small",
            deps = [
                ":%s_under_test" % base,
                "//hakmem/core:pool_exhaustion_suite",
                "@com_google_googletest//:gtest_main",
            ],
        )
        asan_test(
            name = base + "_asan_test",
            size = "small",
            test = ":" + test,
        )
        ubsan_test(
            name = base + "_ubsan_test",
            size = "small",
            test = ":" + test,
        )
        tsan_test(
            name = base + "_tsan_test",
            size = "small",
            args = [_THREADS],
            test = ":" + test,
        )
        helgrind_test(
            name = base + "_helgrind_test",
            size = "medium",
            args = [_THREADS],
            binary = ":" + test,
        )

    native.cc_binary(
        name = name + "_unlocked_threads",
        testonly = True,
        deps = [
            ":%s_unlocked_under_test" % name,
            "//hakmem/core:pool_suite",
            "@com_google_googletest//:gtest_main",
        ],
    )
    helgrind_finds_test(
        name = name + "_unlocked_helgrind_finds_test",
        size = "medium",
        args = [
            "hakmem::LockedPool::",
            _THREADS,
        ],
        binary = ":%s_unlocked_threads" % name,
    )

    native.cc_binary(
        name = name + "_benchmark",
        testonly = True,
        srcs = ["//hakmem/core:pool_benchmark.cc"],
        local_defines = [
            header_define,
            "HAKMEM_POOL_NAMESPACE=hakmem::" + name,
        ],
        deps = [
            ":%s_cached" % name,
            ":%s_locked" % name,
            "//hakmem/core",
            "@com_github_google_benchmark//:benchmark",
        ],
    )
