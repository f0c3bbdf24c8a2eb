"""The shim's libraries, one a stage."""

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

def stage_libraries():
    """Declares :hakmem_<stage> and :hakmem_api_<stage> for every stage."""
    for number, (stage, tiny, l2, l25) in enumerate(STAGES):
        defines = ["HAKMEM_STAGE=%d" % number]
        native.cc_library(
            name = "hakmem_api_" + stage,
            srcs = [
                "export.h",
                "hakmem.cc",
                "heap.cc",
                "stage.h",
            ],
            hdrs = [
                "hakmem.h",
                "heap.h",
            ],
            # For the constructor in it, and hak_* in a shared library.
            alwayslink = True,
            copts = ALLOCATOR_COPTS,
            local_defines = defines,
            deps = [
                "//hakmem/core",
                "//hakmem/l2:l2_" + l2,
                "//hakmem/l25:l25_" + l25,
                "//hakmem/tiny:tiny_" + tiny,
            ],
        )

        # A sanitizer has a malloc of its own, which must stay in place.
        native.cc_library(
            name = "hakmem_" + stage,
            srcs = select({
                "//config:sanitized": [],
                "//conditions:default": [
                    "export.h",
                    "malloc.cc",
                    "new.cc",
                ],
            }),
            hdrs = ["hakmem.h"],
            copts = ALLOCATOR_COPTS,
            local_defines = defines,
            alwayslink = True,
            deps = [":hakmem_api_" + stage],
        )
