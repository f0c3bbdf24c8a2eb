"""The allocator as one object, for libraries that need nothing but the C library.

A link of the usual kind does not do for these. It names libstdc++ because of
functions that are discarded afterwards, and an archive would bring an Abseil
that meets the program's own. Here all that is not reachable from the exported
functions goes first, and of the rest only these keep a global name.
"""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

def _archives(deps):
    """The position-independent archives of `deps`: those kept whole, the others."""
    whole = []
    others = []
    for dep in deps:
        for linker_input in dep[CcInfo].linking_context.linker_inputs.to_list():
            for library in linker_input.libraries:
                archive = library.pic_static_library
                if archive == None:
                    archive = library.static_library
                kept = whole if library.alwayslink else others
                if archive not in kept:
                    kept.append(archive)
    return whole, others

def _relocatable_link(ctx, toolchain, output, inputs, arguments):
    """Links into one object, without what cannot be reached from the exports."""
    args = ctx.actions.args()

    # Without groups, a user's own copy of an inline function does not replace
    # ours, whose name will be gone.
    args.add_all(["-r", "--gc-sections", "--force-group-allocation", "-o", output])
    args.add_all(ctx.attr.exports, before_each = "-u")
    args.add_all(arguments)
    ctx.actions.run(
        executable = toolchain.ld_executable,
        arguments = [args],
        inputs = depset(inputs, transitive = [toolchain.all_files]),
        outputs = [output],
        mnemonic = "LinkAllocator",
        progress_message = "Linking %s" % ctx.label,
    )

def _self_contained_object_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    name = ctx.label.name

    whole, others = _archives(ctx.attr.deps)
    everything = ctx.actions.declare_file(name + ".everything.o")
    _relocatable_link(
        ctx,
        toolchain,
        everything,
        whole + others,
        ["--whole-archive"] + whole +
        ["--no-whole-archive", "--start-group"] + others + ["--end-group"],
    )

    # Abseil's static constructors keep alive what only they use. Nothing that
    # malloc needs may wait for a constructor, since the first call comes before
    # them; the one of our own has a priority and so another section's name.
    unconstructed = ctx.actions.declare_file(name + ".unconstructed.o")
    ctx.actions.run(
        executable = toolchain.objcopy_executable,
        arguments = ["--remove-section=.init_array", everything.path, unconstructed.path],
        inputs = depset([everything], transitive = [toolchain.all_files]),
        outputs = [unconstructed],
        mnemonic = "LinkAllocator",
    )
    needed = ctx.actions.declare_file(name + ".needed.o")
    _relocatable_link(ctx, toolchain, needed, [unconstructed], [unconstructed])

    # The linker leaves a name behind for each function outside that only
    # discarded code called, and a weak reference is no longer weak when such
    # code had a plain one.
    object = ctx.actions.declare_file(name + ".o")
    args = ctx.actions.args()
    args.add_all([toolchain.nm_executable, toolchain.objcopy_executable, needed, object])
    args.add_all(ctx.attr.exports, format_each = "--keep-global-symbol=%s")
    args.add_all(ctx.attr.weak, format_each = "--weaken-symbol=%s")
    ctx.actions.run_shell(
        command = """
            set -eu
            nm=$1 objcopy=$2 needed=$3 object=$4
            shift 4
            "$nm" --undefined-only --format=just-symbols "$needed" >"$object.undefined"
            "$objcopy" --strip-unneeded-symbols="$object.undefined" "$@" "$needed" "$object"
        """,
        arguments = [args],
        inputs = depset([needed], transitive = [toolchain.all_files]),
        outputs = [object],
        mnemonic = "LocaliseSymbols",
    )
    return [DefaultInfo(files = depset([object]))]

_TOOLCHAIN = {
    "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
}

self_contained_object = rule(
    implementation = _self_contained_object_impl,
    attrs = dict(
        _TOOLCHAIN,
        deps = attr.label_list(mandatory = True, providers = [CcInfo]),
        exports = attr.string_list(
            doc = "Symbols that others see. What none of them needs is left out.",
            mandatory = True,
        ),
        weak = attr.string_list(
            doc = "Undefined symbols that may stay so: the code asks before it calls.",
        ),
    ),
    doc = "`deps` and all below them, linked into the one object NAME.o.",
)

def _self_contained_archive_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    archive = ctx.actions.declare_file(ctx.label.name)
    member = ctx.actions.declare_file(ctx.label.name + ".o")
    args = ctx.actions.args()
    args.add_all(ctx.attr.hidden, format_each = "--localize-symbol=%s")
    args.add_all([ctx.file.object, member])
    ctx.actions.run(
        executable = toolchain.objcopy_executable,
        arguments = [args],
        inputs = depset([ctx.file.object], transitive = [toolchain.all_files]),
        outputs = [member],
        mnemonic = "LocaliseSymbols",
    )
    args = ctx.actions.args()
    args.add_all(["rcsD", archive, member])
    ctx.actions.run(
        executable = toolchain.ar_executable,
        arguments = [args],
        inputs = depset([member], transitive = [toolchain.all_files]),
        outputs = [archive],
        mnemonic = "ArchiveAllocator",
    )
    return [DefaultInfo(
        files = depset([archive]),
        runfiles = ctx.runfiles(files = [archive]),
    )]

self_contained_archive = rule(
    implementation = _self_contained_archive_impl,
    attrs = dict(
        _TOOLCHAIN,
        hidden = attr.string_list(
            doc = "Of the symbols that the object exports, those that stay inside.",
        ),
        object = attr.label(allow_single_file = [".o"], mandatory = True),
    ),
    doc = "The archive NAME of a self_contained_object.",
)

def _self_contained_shared_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    library = ctx.actions.declare_file(ctx.label.name)
    args = ctx.actions.args()

    # Through the C driver, which adds the C library and, statically, libgcc's
    # helpers, and no C++ run time. -z defs turns a reference to that one, other
    # than a weak one, into an error here.
    args.add_all(["-shared", "-static-libgcc", "-o", library, ctx.file.object])
    args.add_all([
        "-Wl,-soname," + ctx.attr.soname,
        "-Wl,-z,defs,-z,now,-z,relro,-z,text,-z,noexecstack",
        "-Wl,--exclude-libs,ALL",
        "-Wl,--hash-style=gnu",
        "-Wl,--build-id",
        "-Wl,-O1",
    ])
    ctx.actions.run(
        executable = toolchain.compiler_executable,
        arguments = [args],
        inputs = depset([ctx.file.object], transitive = [toolchain.all_files]),
        outputs = [library],
        env = {"PATH": "/usr/bin:/bin"},
        mnemonic = "LinkAllocator",
        progress_message = "Linking %s" % ctx.label,
    )
    return [DefaultInfo(
        files = depset([library]),
        runfiles = ctx.runfiles(files = [library]),
    )]

self_contained_shared = rule(
    implementation = _self_contained_shared_impl,
    attrs = dict(
        _TOOLCHAIN,
        object = attr.label(allow_single_file = [".o"], mandatory = True),
        soname = attr.string(mandatory = True),
    ),
    doc = "The shared library NAME of a self_contained_object.",
)
