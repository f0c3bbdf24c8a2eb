"""What every crate of the allocator is built with."""

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

def pool_crate(name):
    """The libraries and tests of one pool: its variants over //hakmem/core.

    Args:
      name: of the crate: tiny, l2 or l25.
    """
    header = name + ".h"
    visibility = ["//hakmem:__subpackages__"]
    for variant, deps in [
        ("locked", []),
        ("unlocked", []),
        ("cached", [":%s_locked" % name]),
    ]:
        native.cc_library(
            name = "%s_%s" % (name, variant),
            srcs = ["%s_%s.cc" % (name, variant)],
            hdrs = [header],
            copts = ALLOCATOR_COPTS,
            visibility = visibility,
            deps = ["//hakmem/core"] + deps,
        )
