"""The shim's libraries, one a stage."""

load("//bazel:build_defs.bzl", "NOT_SANITIZED")
load("//hakmem/core:pool.bzl", "ALLOCATOR_COPTS")

# Name of each stage and the variant of each pool that it links. The numbers
# that stage.h knows them by are their places in this list.
STAGES = [
    ("unlocked", "unlocked", "unlocked", "unlocked"),
    ("p0", "locked", "locked", "locked"),
    ("tls_tiny", "cached", "locked", "locked"),
    ("tls_l2", "cached", "cached", "locked"),
    ("tls_full", "cached", "cached", "cached"),
]

ALL_STAGES = [stage for stage, _, _, _ in STAGES]

def stage_tests(
        name,
        srcs,
        stages = ["p0", "tls_full"],
        checked = False,
        deps = [],
        data = [],
        linkopts = [],
        **kwargs):
    """Declares NAME_<stage>_test for each stage: GoogleTests on that malloc.

    Args:
      name: of the tests, without stage and _test.
      srcs: compiled once for all of them.
      stages: to link with.
      checked: whether there is also NAME_checked_test, on what --config=checked
        builds.
      deps: of the sources, beside hakmem.h and GoogleTest.
      data: files that the tests read.
      linkopts: of the tests, beside -pthread.
      **kwargs: size, env, args and what else every test takes.
    """
    native.cc_library(
        name = name + "_test_sources",
        testonly = True,
        srcs = srcs,
        alwayslink = True,
        # The compiler must not know malloc better than we do, nor know better
        # than to misuse it.
        copts = [
            "-fno-builtin",
            "-Wno-unknown-warning-option",  # clang's name for: gcc's next three
            "-Wno-alloc-size-larger-than",
            "-Wno-free-nonheap-object",
            "-Wno-use-after-free",
        ],
        target_compatible_with = NOT_SANITIZED,
        visibility = ["//visibility:private"],
        deps = deps + [
            ":api",
            "@com_google_googletest//:gtest",
        ],
    )
    for stage in stages + (["checked"] if checked else []):
        native.cc_test(
            name = "%s_%s_test" % (name, stage),
            data = data,
            linkopts = ["-pthread"] + linkopts,
            malloc = ":hakmem_" + stage,
            target_compatible_with = NOT_SANITIZED,
            deps = [
                ":%s_test_sources" % name,
                "@com_google_googletest//:gtest_main",
            ],
            **kwargs
        )

def stage_libraries():
    """Declares :hakmem_NAME and :hakmem_api_NAME.

    NAME is each stage, with the checks of --config=checked if that is given, and
    "checked", which is what that config builds by itself.
    """
    for stage in ALL_STAGES:
        _stage_library(stage, stage, select({
            "//config:checked_on": ["HAKMEM_CHECKED"],
            "//conditions:default": [],
        }))
    _stage_library("checked", "p0", ["HAKMEM_CHECKED"])

def _stage_library(name, stage, defines):
    """:hakmem_NAME and :hakmem_api_NAME, with `defines` beside the stage's own."""
    number = ALL_STAGES.index(stage)
    _, tiny, l2, l25 = STAGES[number]
    defines = ["HAKMEM_STAGE=%d" % number] + defines
    native.cc_library(
        name = "hakmem_api_" + name,
        srcs = [
            "background.cc",
            "background.h",
            "check.cc",
            "export.h",
            "hakmem.cc",
            "heap.cc",
            "output_path.h",
            "profile_output.cc",
            "profile_output.h",
            "profile_thread.cc",
            "profile_thread.h",
            "sampled.cc",
            "sampled.h",
            "site_report.cc",
            "site_report.h",
            "sites.cc",
            "stage.h",
            "tracked.cc",
            "usage.cc",
        ],
        hdrs = [
            "hakmem.h",
            "heap.h",
            "tracked.h",
            "usage.h",
        ],
        # For the constructor in it, and hak_* in a shared library.
        alwayslink = True,
        copts = ALLOCATOR_COPTS,
        local_defines = defines,
        deps = [
            "//hakmem/core",
            "//hakmem/core:unwind",
            "//hakmem/l2:l2_" + l2,
            "//hakmem/l25:l25_" + l25,
            "//hakmem/tiny:tiny_" + tiny,
        ],
    )

    # A sanitizer has a malloc of its own, which must stay in place.
    native.cc_library(
        name = "hakmem_" + name,
        srcs = select({
            "//config:sanitized": [],
            "//conditions:default": [
                "allocx.cc",
                "export.h",
                "glibc.cc",
                "malloc.cc",
                "new.cc",
            ],
        }),
        hdrs = ["hakmem.h"],
        copts = ALLOCATOR_COPTS,
        local_defines = defines,
        alwayslink = True,
        deps = [":hakmem_api_" + name],
    )
